    Epilogue epilogue;
//% for _, p in ipairs(kernel.epilogue.parameters) do
    epilogue.${p.name} = ${p.name};
//% end
    epilogue.begin(tile.first_column);

# Turns a folder of templates into templates.c. Run by the build:
#   cmake -DFOLDER=templates -DOUTPUT=templates.c -P embed_templates.cmake
# Bytes are written as numbers: no limit of a compiler on string literals, nothing to escape.

file(GLOB_RECURSE _files RELATIVE ${FOLDER} ${FOLDER}/*.cu ${FOLDER}/*.cuh)
list(SORT _files)

set(_arrays "")
set(_rows "")
set(_number 0)
foreach(_file IN LISTS _files)
    file(READ ${FOLDER}/${_file} _hex HEX)
    string(REGEX REPLACE "([0-9a-f][0-9a-f])" "0x\\1," _bytes "${_hex}")
    string(REGEX REPLACE "(0x..,0x..,0x..,0x..,0x..,0x..,0x..,0x..,0x..,0x..,0x..,0x..,0x..,0x..,0x..,0x..,)"
        "\\1\n" _bytes "${_bytes}")
    string(APPEND _arrays "static const char text_${_number}[] = {\n${_bytes}0};\n")
    string(APPEND _rows "    {\"templates/${_file}\", text_${_number}, sizeof text_${_number} - 1},\n")
    math(EXPR _number "${_number} + 1")
endforeach()
file(WRITE ${OUTPUT}.new
    "/* Made from templates/ by embed_templates.cmake. */\n#include \"template.h\"\n\n${_arrays}\n"
    "const template_file template_files[] = {\n${_rows}    {0, 0, 0}};\n")
file(COPY_FILE ${OUTPUT}.new ${OUTPUT})
file(REMOVE ${OUTPUT}.new)

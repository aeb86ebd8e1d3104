# Turns the text files of a folder into a C array. Run by the build:
#   cmake -DFOLDER=templates -DENDINGS=cu,cuh -DHEADER=template.h -DTYPE=template_file -DARRAY=template_files -DOUTPUT=x.c -P embed_texts.cmake
# HEADER declares `extern const TYPE ARRAY[]`; TYPE is a struct of name ("templates/device/math.cuh"), text and bytes, and
# the last row is zeros. Bytes are written as numbers: no limit of a compiler on string literals, nothing to escape.

string(REPLACE "," ";" _endings ${ENDINGS})
set(_files "")
foreach(_ending IN LISTS _endings)
    file(GLOB_RECURSE _found RELATIVE ${FOLDER} ${FOLDER}/*.${_ending})
    list(APPEND _files ${_found})
endforeach()
list(SORT _files)
get_filename_component(_folder_name ${FOLDER} NAME)

set(_arrays "")
set(_rows "")
set(_number 0)
foreach(_file IN LISTS _files)
    file(READ ${FOLDER}/${_file} _hex HEX)
    string(REGEX REPLACE "([0-9a-f][0-9a-f])" "0x\\1," _bytes "${_hex}")
    string(REGEX REPLACE "(0x..,0x..,0x..,0x..,0x..,0x..,0x..,0x..,0x..,0x..,0x..,0x..,0x..,0x..,0x..,0x..,)"
        "\\1\n" _bytes "${_bytes}")
    string(APPEND _arrays "static const char text_${_number}[] = {\n${_bytes}0};\n")
    string(APPEND _rows "    {\"${_folder_name}/${_file}\", text_${_number}, sizeof text_${_number} - 1},\n")
    math(EXPR _number "${_number} + 1")
endforeach()
file(WRITE ${OUTPUT}.new
    "/* Made by embed_texts.cmake. */\n#include \"${HEADER}\"\n\n${_arrays}\n"
    "const ${TYPE} ${ARRAY}[] = {\n${_rows}    {0, 0, 0}};\n")
file(COPY_FILE ${OUTPUT}.new ${OUTPUT})
file(REMOVE ${OUTPUT}.new)

# What every target of the project is compiled with, and the switches a user may set.

option(MMLP_BUILD_TESTS "Build the tests (needs Criterion)" ON)
option(MMLP_SANITIZE "Build with AddressSanitizer and UndefinedBehaviorSanitizer" OFF)

if(NOT CMAKE_BUILD_TYPE)
    set(CMAKE_BUILD_TYPE Release CACHE STRING "" FORCE)
endif()

set(CMAKE_C_STANDARD 11)
set(CMAKE_C_STANDARD_REQUIRED ON)
set(CMAKE_C_EXTENSIONS OFF)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(CMAKE_C_VISIBILITY_PRESET hidden)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)

add_library(mmlp_flags INTERFACE)
target_compile_options(mmlp_flags INTERFACE -Wall -Wextra -Wshadow -Wconversion -Werror
    "-ffile-prefix-map=${PROJECT_SOURCE_DIR}/=")
target_compile_definitions(mmlp_flags INTERFACE _GNU_SOURCE)
if(MMLP_SANITIZE)
    target_compile_options(mmlp_flags INTERFACE
        -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer)
    target_link_options(mmlp_flags INTERFACE -fsanitize=address,undefined)
endif()

# The CUDA C programs once more, by nvcc where there is one that works: programs/NAME.cu becomes
# NAME.cu.ptx, for compute_90, in MMLP_NVCC_PROGRAMS. MMLP_NVCC_MISSING is empty, or says why
# there are none. What nvcc makes of them does not depend on the host's compiler: one build is enough.

set(MMLP_NVCC_PROGRAMS ${PROJECT_BINARY_DIR}/nvcc-programs)
set(MMLP_NVCC_MISSING "")
find_program(MMLP_NVCC nvcc HINTS ${MMLP_CUDA_HOME}/bin)
if(MMLP_SANITIZE OR NOT CMAKE_C_COMPILER_ID STREQUAL "GNU")
    set(MMLP_NVCC_MISSING "the gcc build without sanitizers has them")
elseif(NOT MMLP_NVCC)
    set(MMLP_NVCC_MISSING "nvcc was not found on the path, nor in ${MMLP_CUDA_HOME}/bin")
else()
    set(_probe ${CMAKE_CURRENT_BINARY_DIR}/nvcc_probe)
    file(WRITE ${_probe}.cu "__global__ void probe() {}\n")
    execute_process(COMMAND ${MMLP_NVCC} -ptx -arch=compute_100 -std=c++17 ${_probe}.cu -o ${_probe}.ptx
        RESULT_VARIABLE _result OUTPUT_VARIABLE _output ERROR_VARIABLE _output)
    if(NOT _result EQUAL 0)
        string(REGEX REPLACE "\n.*" "" _output "${_output}")
        set(MMLP_NVCC_MISSING "${MMLP_NVCC} does not work: ${_result} ${_output}")
    endif()
endif()

if(MMLP_NVCC_MISSING)
    message(STATUS "emulator.programs*.nvcc are left out: ${MMLP_NVCC_MISSING}")
else()
    file(MAKE_DIRECTORY ${MMLP_NVCC_PROGRAMS})
    file(GLOB _programs CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/programs/*.cu)
    set(_all_ptx "")
    foreach(_program IN LISTS _programs)
        get_filename_component(_name ${_program} NAME)
        set(_ptx ${MMLP_NVCC_PROGRAMS}/${_name}.ptx)
        add_custom_command(OUTPUT ${_ptx}
            COMMAND ${MMLP_NVCC} -ptx -arch=compute_90 -std=c++17 ${_program} -o ${_ptx}
            DEPENDS ${_program} ${MMLP_NVCC}
            COMMENT "nvcc ${_name}"
            VERBATIM)
        list(APPEND _all_ptx ${_ptx})
    endforeach()
    add_custom_target(nvcc_programs DEPENDS ${_all_ptx})
endif()

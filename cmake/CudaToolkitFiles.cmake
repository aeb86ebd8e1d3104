# Finds the files of a CUDA toolkit that the build and the tests use: headers, NVRTC, ptxas.
# Nothing is linked: the headers give types, and the libraries are opened with dlopen at run time.
# Looked at in order: -DMMLP_CUDA_HOME, $CUDA_HOME, what scripts/setup unpacked, the usual place.

set(_candidates ${MMLP_CUDA_HOME} $ENV{CUDA_HOME} ${PROJECT_SOURCE_DIR}/build/cuda /usr/local/cuda)
find_path(MMLP_CUDA_INCLUDE cuda.h PATHS ${_candidates} PATH_SUFFIXES include NO_DEFAULT_PATH)
if(NOT MMLP_CUDA_INCLUDE)
    message(FATAL_ERROR "CUDA headers (cuda.h, nvrtc.h) not found: run scripts/setup, or set CUDA_HOME")
endif()
get_filename_component(_home ${MMLP_CUDA_INCLUDE} DIRECTORY)
set(MMLP_CUDA_HOME ${_home} CACHE PATH "The CUDA toolkit whose headers, NVRTC and ptxas are used")

file(STRINGS ${MMLP_CUDA_INCLUDE}/cuda.h _line REGEX "^#define CUDA_VERSION ")
string(REGEX MATCH "[0-9]+$" MMLP_CUDA_VERSION "${_line}")
if(MMLP_CUDA_VERSION LESS 13000)
    message(FATAL_ERROR "CUDA ${MMLP_CUDA_VERSION} found in ${_home}; 13.0 or newer is needed: "
        "run scripts/setup, or set CUDA_HOME")
endif()

add_library(mmlp_cuda_headers INTERFACE)
target_include_directories(mmlp_cuda_headers SYSTEM INTERFACE ${MMLP_CUDA_INCLUDE})

# NCCL's header lies beside the toolkit's, or where scripts/setup unpacks NVIDIA's wheel.
find_path(MMLP_NCCL_INCLUDE nccl.h
    PATHS ${MMLP_CUDA_INCLUDE} ${PROJECT_SOURCE_DIR}/build/nccl/include NO_DEFAULT_PATH)
find_path(MMLP_NCCL_INCLUDE nccl.h)
if(NOT MMLP_NCCL_INCLUDE)
    message(FATAL_ERROR "nccl.h was not found: run scripts/setup, which fetches it")
endif()
add_library(mmlp_nccl_headers INTERFACE)
target_include_directories(mmlp_nccl_headers SYSTEM INTERFACE ${MMLP_NCCL_INCLUDE})
target_link_libraries(mmlp_nccl_headers INTERFACE mmlp_cuda_headers)

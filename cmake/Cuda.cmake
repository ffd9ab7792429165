# CUDA where there is a toolkit, else the program is built without it and says so. SLUICE_CUDA=OFF leaves it out.
# The sanitizer builds do: what they can look at runs in the tests' emulation.
if(SLUICE_SANITIZE)
  set(cuda_wanted OFF)
else()
  set(cuda_wanted ON)
endif()
option(SLUICE_CUDA "Build the CUDA backend if there is a toolkit" ${cuda_wanted})
if(NOT SLUICE_CUDA)
  return()
endif()

find_program(SLUICE_NVCC nvcc HINTS /usr/local/cuda/bin ENV CUDA_PATH PATH_SUFFIXES bin)
if(NOT SLUICE_NVCC)
  message(STATUS "no nvcc: building without CUDA")
  set(SLUICE_CUDA OFF)
  return()
endif()
set(CMAKE_CUDA_COMPILER ${SLUICE_NVCC})
if(CCACHE_PROGRAM AND NOT CMAKE_CUDA_COMPILER_LAUNCHER)
  set(CMAKE_CUDA_COMPILER_LAUNCHER ${CCACHE_PROGRAM})
endif()
# wgmma and TMA exist for 90a only; the plain kernels also run on an A100, and through PTX on what comes later.
set(CMAKE_CUDA_ARCHITECTURES 90a-real 80 CACHE STRING "GPUs to compile for")
enable_language(CUDA)
# CMake 3.25 does not know it.
set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION -std=c++20)
set(CMAKE_CUDA20_EXTENSION_COMPILE_OPTION -std=c++20)
find_package(CUDAToolkit REQUIRED)
if(NOT TARGET CUDA::cublasLt)
  message(STATUS "no cuBLAS in the toolkit: building without CUDA")
  set(SLUICE_CUDA OFF)
  return()
endif()

# fmt 9 believes nvcc cannot do what its consteval checks need. What ptxas has to say (spills, wgmma it serialises) is an
# error.
add_compile_options("$<$<COMPILE_LANGUAGE:CUDA>:--expt-relaxed-constexpr;-DFMT_USE_CONSTEXPR=1;-Xcompiler=-Wall,-Wextra;-Werror=all-warnings;-Xptxas=-warn-spills,-Werror>")

# One interface for what the device room links; the static runtime lets the program start without a driver.
add_library(sluice_cuda_libraries INTERFACE)
target_link_libraries(sluice_cuda_libraries INTERFACE CUDA::cudart_static CUDA::cublasLt)

# NCCL of the toolkit, or of a wheel that was unpacked or installed: pass -DSLUICE_NCCL_DIR=.../nvidia/nccl then.
set(SLUICE_NCCL_DIR "" CACHE PATH "Where NCCL's include/ and lib/ are, if not beside the toolkit's")
find_path(nccl_include nccl.h HINTS ${SLUICE_NCCL_DIR}/include ${CUDAToolkit_INCLUDE_DIRS} NO_CACHE)
find_library(nccl_library NAMES nccl libnccl.so.2 HINTS ${SLUICE_NCCL_DIR}/lib ${CUDAToolkit_LIBRARY_DIR} NO_CACHE)
add_library(sluice_nccl INTERFACE)
target_link_libraries(sluice_nccl INTERFACE CUDA::cudart_static)
if(nccl_include AND nccl_library)
  set(SLUICE_NCCL ON)
  target_include_directories(sluice_nccl SYSTEM INTERFACE ${nccl_include})
  target_link_libraries(sluice_nccl INTERFACE ${nccl_library})
  message(STATUS "ranks on GPUs: by ${nccl_library}")
else()
  set(SLUICE_NCCL OFF)
  message(STATUS "ranks on GPUs: only those that share one; for one each install NCCL or set SLUICE_NCCL_DIR")
endif()

# Libraries that may be missing: each has a folder in src/device/cuda/, whose absent.* is built where the library is not.
# The headers are what tools/fetch_cuda_headers.sh brought, or another installation's.
set(SLUICE_CUDA_OPTIONAL cudnn cutlass)
set(SLUICE_CUDA_PRESENT "")
set(SLUICE_CUDA_HEADERS ${PROJECT_SOURCE_DIR}/build/cuda_headers CACHE PATH "Where tools/fetch_cuda_headers.sh put them")
# Looked at by every build, so that headers fetched later are taken.
file(GLOB fetched CONFIGURE_DEPENDS ${SLUICE_CUDA_HEADERS}/*)

find_path(cudnn_include cudnn.h HINTS ${CUDAToolkit_INCLUDE_DIRS} NO_CACHE)
find_library(cudnn_library cudnn HINTS ${CUDAToolkit_LIBRARY_DIR} NO_CACHE)
# Not CUDA::nvrtc, which brings libcuda along.
find_library(nvrtc_library nvrtc HINTS ${CUDAToolkit_LIBRARY_DIR} NO_CACHE)
find_path(cudnn_graphs cudnn_frontend.h HINTS ${fetched} PATH_SUFFIXES include NO_CACHE)
if(cudnn_include AND cudnn_library AND nvrtc_library AND cudnn_graphs)
  list(APPEND SLUICE_CUDA_PRESENT cudnn)
  target_include_directories(sluice_cuda_libraries SYSTEM INTERFACE ${cudnn_graphs} ${cudnn_include})
  target_link_libraries(sluice_cuda_libraries INTERFACE ${cudnn_library} ${nvrtc_library})
  message(STATUS "attention on CUDA: by ${cudnn_library}, with the headers in ${cudnn_graphs}")
elseif(cudnn_include AND cudnn_library)
  message(STATUS "attention on CUDA: by plain kernels, slowly; for cuDNN's run tools/fetch_cuda_headers.sh")
else()
  message(STATUS "attention on CUDA: by plain kernels, slowly; there is no cuDNN in the toolkit")
endif()

# CUTLASS's kernels are compiled for one GPU only, without asserts, whose calls would serialise wgmma.
find_path(cutlass_include cutlass/cutlass.h HINTS ${fetched} PATH_SUFFIXES include NO_CACHE)
if(cutlass_include)
  list(APPEND SLUICE_CUDA_PRESENT cutlass)
  file(GLOB cutlass_sources CONFIGURE_DEPENDS src/device/cuda/cutlass/*.cu)
  list(FILTER cutlass_sources EXCLUDE REGEX "/absent[.]cu$")
  add_library(sluice_cutlass OBJECT ${cutlass_sources})
  target_include_directories(sluice_cutlass PRIVATE src)
  target_include_directories(sluice_cutlass SYSTEM PRIVATE ${cutlass_include})
  target_link_libraries(sluice_cutlass PRIVATE fmt::fmt CUDA::cudart_static)
  target_compile_definitions(sluice_cutlass PRIVATE NDEBUG)
  set(strict_launcher sh ${CMAKE_CURRENT_LIST_DIR}/refuse_serialized_wgmma.sh ${CMAKE_CUDA_COMPILER_LAUNCHER})
  set_target_properties(sluice_cutlass PROPERTIES CUDA_ARCHITECTURES 90a-real CUDA_COMPILER_LAUNCHER "${strict_launcher}")
  target_sources(sluice_cuda_libraries INTERFACE $<TARGET_OBJECTS:sluice_cutlass>)
  message(STATUS "grouped products on CUDA: by CUTLASS, with the headers in ${cutlass_include}")
else()
  message(STATUS "grouped products on CUDA: one by one, and the host waits; for CUTLASS's run tools/fetch_cuda_headers.sh")
endif()

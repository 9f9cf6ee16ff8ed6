# The CUDA plug-in: built where nvcc is found, unless TESSERA_CUDA is OFF. Everything else builds and passes without it.
set(TESSERA_CUDA AUTO CACHE STRING "the CUDA plug-in: AUTO (where nvcc is found), ON (an error where it is not), OFF")
set(TESSERA_CUDA_FOUND FALSE)
if(TESSERA_CUDA)
  include(CheckLanguage)
  if(NOT CMAKE_CUDA_COMPILER AND NOT DEFINED ENV{CUDACXX} AND EXISTS /usr/local/cuda/bin/nvcc)
    set(CMAKE_CUDA_COMPILER /usr/local/cuda/bin/nvcc) # where NVIDIA's packages put it, outside PATH
  endif()
  check_language(CUDA)
  if(CMAKE_CUDA_COMPILER)
    if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES) # before enable_language; the last one also as PTX, for cards to come
      set(CMAKE_CUDA_ARCHITECTURES 75-real 80-real 86-real 89-real 90-real 100-real 120)
    endif()
    if(CMAKE_C_COMPILER_LAUNCHER AND NOT DEFINED CMAKE_CUDA_COMPILER_LAUNCHER)
      set(CMAKE_CUDA_COMPILER_LAUNCHER ${CMAKE_C_COMPILER_LAUNCHER}) # ccache knows nvcc too
    endif()
    enable_language(CUDA)
    find_package(CUDAToolkit 12.8 REQUIRED) # the first that knows sm_120
    set(TESSERA_CUDA_FOUND TRUE)
  elseif(NOT TESSERA_CUDA STREQUAL AUTO)
    message(FATAL_ERROR "TESSERA_CUDA is ${TESSERA_CUDA}, but no nvcc is found: set CMAKE_CUDA_COMPILER to it, or TESSERA_CUDA to OFF")
  endif()
endif()

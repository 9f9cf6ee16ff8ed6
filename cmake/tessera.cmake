# One static library per folder, one test program per claim-file; the flags that exactness needs.
add_compile_options("$<$<COMPILE_LANGUAGE:C>:-Wall;-Wextra;-Wno-missing-field-initializers;-Wshadow;-Wstrict-prototypes;-Wmissing-prototypes;-Wpointer-arith>"
                    "$<$<COMPILE_LANGUAGE:C>:-Wwrite-strings;-Wvla;-Werror=implicit-function-declaration;-fno-math-errno;-fno-common>"
                    "$<$<COMPILE_LANGUAGE:CXX>:-Wall;-Wextra;-Wno-missing-field-initializers;-Wno-unknown-pragmas>"
                    "$<$<COMPILE_LANGUAGE:C,CXX>:-ffp-contract=off>")
add_compile_definitions(_GNU_SOURCE)
include_directories(${CMAKE_SOURCE_DIR})

if(TESSERA_SANITIZE)
  add_compile_options($<$<COMPILE_LANGUAGE:C,CXX>:-fsanitize=${TESSERA_SANITIZE}> $<$<COMPILE_LANGUAGE:C,CXX>:-fno-omit-frame-pointer> -g)
  add_link_options(-fsanitize=${TESSERA_SANITIZE})
  if(TESSERA_SANITIZE MATCHES "undefined")
    add_compile_options($<$<COMPILE_LANGUAGE:C,CXX>:-fno-sanitize-recover=undefined>)
  endif()
endif()

if(TESSERA_FUZZ)
  add_compile_options($<$<COMPILE_LANGUAGE:C>:-fsanitize=fuzzer-no-link>) # coverage of the libraries, which the fuzzer steers by
endif()

# tessera_lib(name SOURCES a.c b.c LIBS other...): a folder's static library.
function(tessera_lib name)
  cmake_parse_arguments(A "" "" "SOURCES;LIBS" ${ARGN})
  add_library(${name} STATIC ${A_SOURCES})
  target_link_libraries(${name} PUBLIC ${A_LIBS})
endfunction()

# tessera_test(name SOURCES t.c LIBS ... [LABELS l] [TIMEOUT s]): a cmocka program run by ctest.
function(tessera_test name)
  cmake_parse_arguments(A "" "TIMEOUT" "SOURCES;LIBS;LABELS" ${ARGN})
  add_executable(test_${name} ${A_SOURCES} ${CMAKE_SOURCE_DIR}/tests/support/env.c)
  target_link_libraries(test_${name} PRIVATE ${A_LIBS} PkgConfig::CMOCKA m)
  set_target_properties(test_${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
  add_test(NAME ${name} COMMAND test_${name} WORKING_DIRECTORY ${CMAKE_SOURCE_DIR})
  if(NOT A_TIMEOUT)
    set(A_TIMEOUT 120)
  endif()
  set_tests_properties(${name} PROPERTIES TIMEOUT ${A_TIMEOUT} SKIP_RETURN_CODE 77 LABELS "${A_LABELS}")
  if(TESSERA_SANITIZE) # what a test measures of memory or time means nothing then
    set_tests_properties(${name} PROPERTIES ENVIRONMENT_MODIFICATION "TESSERA_SANITIZED=set:1")
  endif()
endfunction()

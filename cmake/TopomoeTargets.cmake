# Helpers that every folder uses: libraries and tests with our language level, warnings and sanitizers.

set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)

# Designated initialisers leave out what is default on purpose. GCC 12 is wrong about std::string and moved
# optionals once it inlines them (its bugs 105651 and 105562).
set(TOPOMOE_WARNINGS -Wall -Wextra -Wno-missing-field-initializers -Wno-maybe-uninitialized -Wno-restrict -Wno-array-bounds -Wno-stringop-overflow -Wno-stringop-overread -Wpedantic -Wshadow -Wconversion -Wsign-conversion
    -Wnon-virtual-dtor -Woverloaded-virtual -Werror)
if(NOT CMAKE_CXX_COMPILER_ID STREQUAL "GNU")  # others know other warnings; none of theirs stops a build
  set(TOPOMOE_WARNINGS -Wall -Wextra -Wno-missing-field-initializers -Wno-deprecated-declarations)
endif()

function(topomoe_compile_options target)
  target_compile_features(${target} PUBLIC cxx_std_20)
  target_compile_options(${target} PRIVATE "$<$<COMPILE_LANGUAGE:CXX>:${TOPOMOE_WARNINGS}>")
  # No contraction: kernels promise the same bits for the same row wherever it is computed.
  target_compile_options(${target} PRIVATE "$<$<COMPILE_LANGUAGE:CXX>:-ffp-contract=off>")
  if(TOPOMOE_SANITIZE)
    target_compile_options(${target} PRIVATE
      "$<$<COMPILE_LANGUAGE:CXX>:-fsanitize=${TOPOMOE_SANITIZE};-fno-omit-frame-pointer;-fno-sanitize-recover=all>")
    target_link_options(${target} PUBLIC -fsanitize=${TOPOMOE_SANITIZE})
  endif()
endfunction()

# A sanitizer looks at some of our libraries and takes the others, which are plain, from a build that has made them.
set(TOPOMOE_PLAIN_LIBRARIES "" CACHE STRING "Our libraries that this build does not compile: rates;planner say")
set(TOPOMOE_PLAIN_FROM ${PROJECT_SOURCE_DIR}/build/release CACHE PATH "The build that has compiled TOPOMOE_PLAIN_LIBRARIES")

# topomoe_add_library(name SOURCES ... [PUBLIC libs...] [PRIVATE libs...]) -> topomoe_<name>, topomoe::<name>
# Compiled with topomoe_library_headers, unless NO_HEADERS.
function(topomoe_add_library name)
  cmake_parse_arguments(ARG "NO_HEADERS" "" "SOURCES;PUBLIC;PRIVATE" ${ARGN})
  if(name IN_LIST TOPOMOE_PLAIN_LIBRARIES)
    file(RELATIVE_PATH folder ${PROJECT_BINARY_DIR} ${CMAKE_CURRENT_BINARY_DIR})
    add_library(topomoe_${name} STATIC IMPORTED GLOBAL)
    set(archive ${TOPOMOE_PLAIN_FROM}/${folder}/libtopomoe_${name}.a)
    if(NOT EXISTS ${archive})
      message(FATAL_ERROR "TOPOMOE_PLAIN_LIBRARIES: ${name}: there is no ${archive}: build TOPOMOE_PLAIN_FROM first")
    endif()
    set_target_properties(topomoe_${name} PROPERTIES IMPORTED_LOCATION ${archive})
    list(TRANSFORM ARG_PRIVATE REPLACE "(.+)" "$<LINK_ONLY:\\1>")
    target_link_libraries(topomoe_${name} INTERFACE topomoe::api ${ARG_PUBLIC} ${ARG_PRIVATE})
    add_library(topomoe::${name} ALIAS topomoe_${name})
    return()
  endif()
  add_library(topomoe_${name} STATIC ${ARG_SOURCES})
  add_library(topomoe::${name} ALIAS topomoe_${name})
  target_include_directories(topomoe_${name} PRIVATE ${PROJECT_SOURCE_DIR})
  target_link_libraries(topomoe_${name} PUBLIC topomoe::api ${ARG_PUBLIC} PRIVATE ${ARG_PRIVATE})
  topomoe_compile_options(topomoe_${name})
  if(NOT ARG_NO_HEADERS)
    target_precompile_headers(topomoe_${name} REUSE_FROM topomoe_library_headers)
  endif()
endfunction()

# Headers that cost seconds in every source that includes them, compiled once for our libraries and once for all tests.
# GCC refuses those compiled with other options, and GCC 12 crashes on those of another -O: a source or target with
# options of its own goes without (SKIP_PRECOMPILE_HEADERS, NO_HEADERS). Sources include what they use all the same.
file(CONFIGURE OUTPUT ${PROJECT_BINARY_DIR}/generated/headers.cpp CONTENT "// CMake makes headers for sources.\n")
function(topomoe_headers name)
  add_library(${name} OBJECT ${PROJECT_BINARY_DIR}/generated/headers.cpp)
  target_precompile_headers(${name} PRIVATE ${ARGN} <algorithm> <array> <cmath> <functional> <map> <memory> <optional> <set>
    <span> <string> <vector>)
endfunction()

# Position-independent as programs are, so that headers and objects fit all of them.
function(topomoe_program_options target)
  topomoe_compile_options(${target})
  set_target_properties(${target} PROPERTIES POSITION_INDEPENDENT_CODE OFF)
  target_compile_options(${target} PRIVATE "$<$<COMPILE_LANGUAGE:C,CXX>:${CMAKE_CXX_COMPILE_OPTIONS_PIE}>")
endfunction()

# Tests take longer to compile than to run, and it is our libraries that run: -O1 in a release build.
function(topomoe_test_options target)
  topomoe_program_options(${target})
  target_compile_options(${target} PRIVATE "$<$<AND:$<CONFIG:Release>,$<COMPILE_LANGUAGE:CXX>>:-O1>")
endfunction()

# topomoe_add_test(name SOURCES ... LIBS ... [LABELS ...]): one GoogleTest binary, each TEST a ctest entry.
# Tests find our files through TOPOMOE_SOURCE_DIR and data of others through the environment variable
# TOPOMOE_DATA_DIR (default ../shared beside the checkout). The target topomoe_tests builds those binaries alone.
function(topomoe_add_test name)
  cmake_parse_arguments(ARG "" "" "SOURCES;LIBS;LABELS" ${ARGN})
  add_executable(${name} ${ARG_SOURCES})
  target_include_directories(${name} PRIVATE ${PROJECT_SOURCE_DIR})
  target_compile_definitions(${name} PRIVATE TOPOMOE_SOURCE_DIR="${PROJECT_SOURCE_DIR}")
  target_link_libraries(${name} PRIVATE ${ARG_LIBS} GTest::gtest GTest::gtest_main)
  topomoe_test_options(${name})
  target_precompile_headers(${name} REUSE_FROM topomoe_test_headers)
  set(properties TIMEOUT 300)
  if(ARG_LABELS)
    list(APPEND properties LABELS "${ARG_LABELS}")
  endif()
  if(NOT TARGET topomoe_tests)
    add_custom_target(topomoe_tests)
  endif()
  add_dependencies(topomoe_tests ${name})
  gtest_discover_tests(${name} DISCOVERY_TIMEOUT 60 PROPERTIES ${properties})
endfunction()

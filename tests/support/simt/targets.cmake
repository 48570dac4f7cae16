# The SIMT harness: kernels compiled for the host, each flavour under sanitizers of its own whatever the build's are.
#   plain    many shapes, fast          thread    races          address    bounds, alignment, undefined behaviour
# TOPOMOE_SIMT_FLAVOURS: those that this build makes. A build under a sanitizer makes that one's alone, since one
# program cannot carry two; elsewhere those whose runtime this machine has.
include(CheckCXXSourceRuns)

set(TOPOMOE_SIMT_DIR ${CMAKE_CURRENT_LIST_DIR})
set(TOPOMOE_SIMT_LINK_thread -fsanitize=thread)
set(TOPOMOE_SIMT_LINK_address -fsanitize=address,undefined)
set(TOPOMOE_SIMT_COMPILE_thread ${TOPOMOE_SIMT_LINK_thread} -g1)
set(TOPOMOE_SIMT_COMPILE_address ${TOPOMOE_SIMT_LINK_address} -fno-sanitize-recover=all -fno-omit-frame-pointer -g1)
if(TOPOMOE_SANITIZE STREQUAL "thread")
  set(TOPOMOE_SIMT_FLAVOURS thread)
elseif(TOPOMOE_SANITIZE)
  set(TOPOMOE_SIMT_FLAVOURS address)
else()
  set(TOPOMOE_SIMT_FLAVOURS plain)
  foreach(flavour thread address)
    set(CMAKE_REQUIRED_FLAGS ${TOPOMOE_SIMT_LINK_${flavour}})
    check_cxx_source_runs("int main() {}" TOPOMOE_SIMT_RUNS_${flavour})
    if(TOPOMOE_SIMT_RUNS_${flavour})
      list(APPEND TOPOMOE_SIMT_FLAVOURS ${flavour})
    else()
      message(STATUS "topomoe: no program runs with ${TOPOMOE_SIMT_LINK_${flavour}}: the harness goes without")
    endif()
  endforeach()
  unset(CMAKE_REQUIRED_FLAGS)
endif()

# No sanitizer, ever: see scheduler.cpp. No loops turned into memset or memcpy either, which sanitizers intercept.
add_library(topomoe_simt STATIC ${TOPOMOE_SIMT_DIR}/scheduler.cpp ${TOPOMOE_SIMT_DIR}/fiber.cpp)
target_include_directories(topomoe_simt PRIVATE ${PROJECT_SOURCE_DIR})
target_compile_options(topomoe_simt PRIVATE ${TOPOMOE_WARNINGS} -fno-tree-loop-distribute-patterns)

# topomoe_simt_objects(name flavour sources...): an object library of kernels and of what calls CUDA, against cuda/.
function(topomoe_simt_objects name flavour)
  add_library(${name} OBJECT ${ARGN})
  set(kernels ${ARGN})
  list(FILTER kernels INCLUDE REGEX "\\.cu$")
  set_source_files_properties(${kernels} PROPERTIES LANGUAGE CXX)
  target_include_directories(${name} BEFORE PRIVATE ${TOPOMOE_SIMT_DIR}/cuda ${PROJECT_SOURCE_DIR})
  target_link_libraries(${name} PRIVATE topomoe::api)
  topomoe_compile_options(${name})
  # Warnings as nvcc has them, which knows no conversions.
  target_compile_options(${name} PRIVATE -include cuda_runtime.h -fdata-sections -Wno-unknown-pragmas
    -Wno-conversion -Wno-sign-conversion ${TOPOMOE_SIMT_COMPILE_${flavour}})
endfunction()

# topomoe_simt_program(name flavour OBJECTS object libraries... [LIBS ...]): a program of that flavour.
function(topomoe_simt_program name flavour)
  cmake_parse_arguments(ARG "" "" "OBJECTS;LIBS" ${ARGN})
  list(TRANSFORM ARG_OBJECTS REPLACE "(.+)" "$<TARGET_OBJECTS:\\1>")
  add_executable(${name} ${ARG_OBJECTS})
  target_link_libraries(${name} PRIVATE topomoe_simt ${ARG_LIBS})
  target_link_options(${name} PRIVATE ${TOPOMOE_SIMT_LINK_${flavour}} LINKER:-T,${TOPOMOE_SIMT_DIR}/shared.ld)
  set_target_properties(${name} PROPERTIES LINK_DEPENDS ${TOPOMOE_SIMT_DIR}/shared.ld)
endfunction()

# The same as a GoogleTest binary, each TEST a ctest entry: "thread: Router.NoRows_WritesNothing".
function(topomoe_simt_test name flavour)
  cmake_parse_arguments(ARG "" "" "OBJECTS;LIBS" ${ARGN})
  topomoe_simt_program(${name} ${flavour} OBJECTS ${ARG_OBJECTS} LIBS ${ARG_LIBS} GTest::gtest GTest::gtest_main)
  add_dependencies(topomoe_tests ${name})
  gtest_discover_tests(${name} TEST_PREFIX "${flavour}: " DISCOVERY_TIMEOUT 60 PROPERTIES TIMEOUT 300 LABELS simt)
endfunction()

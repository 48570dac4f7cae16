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
# topomoe_simt_portable switches stacks as machines other than x86-64 do.
foreach(name topomoe_simt topomoe_simt_portable)
  add_library(${name} STATIC ${TOPOMOE_SIMT_DIR}/scheduler.cpp ${TOPOMOE_SIMT_DIR}/fiber.cpp)
  target_include_directories(${name} PRIVATE ${PROJECT_SOURCE_DIR})
  target_compile_options(${name} PRIVATE ${TOPOMOE_WARNINGS} -fno-tree-loop-distribute-patterns)
endforeach()
target_compile_definitions(topomoe_simt_portable PRIVATE TOPOMOE_SIMT_UCONTEXT)

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

# topomoe_simt_program(name flavour OBJECTS object libraries... LIBS topomoe_simt ...): a program of that flavour.
function(topomoe_simt_program name flavour)
  cmake_parse_arguments(ARG "" "" "OBJECTS;LIBS" ${ARGN})
  list(TRANSFORM ARG_OBJECTS REPLACE "(.+)" "$<TARGET_OBJECTS:\\1>")
  add_executable(${name} ${ARG_OBJECTS})
  target_link_libraries(${name} PRIVATE ${ARG_LIBS})
  target_link_options(${name} PRIVATE ${TOPOMOE_SIMT_LINK_${flavour}} LINKER:-T,${TOPOMOE_SIMT_DIR}/shared.ld)
  set_target_properties(${name} PROPERTIES LINK_DEPENDS ${TOPOMOE_SIMT_DIR}/shared.ld)
endfunction()

# The same as a GoogleTest binary, each TEST a ctest entry: "thread.Router.NoRows_WritesNothing". PREFIX, where the
# flavour does not tell it from another; FILTER, where it need not run all.
function(topomoe_simt_test name flavour)
  cmake_parse_arguments(ARG "" "PREFIX;FILTER" "OBJECTS;LIBS" ${ARGN})
  if(NOT ARG_PREFIX)
    set(ARG_PREFIX ${flavour})
  endif()
  topomoe_simt_program(${name} ${flavour} OBJECTS ${ARG_OBJECTS} LIBS ${ARG_LIBS} GTest::gtest GTest::gtest_main)
  add_dependencies(topomoe_tests ${name})
  gtest_discover_tests(${name} TEST_PREFIX "${ARG_PREFIX}." TEST_FILTER "${ARG_FILTER}" DISCOVERY_TIMEOUT 60
                       PROPERTIES TIMEOUT 300 LABELS simt)
endfunction()

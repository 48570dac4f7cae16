# TopomoeVersion.hpp: the project's version, and what git says of the checkout when CMake configures it.
# A source archive has no git, and a checkout of another user makes git refuse; then the text is "unknown".

set(TOPOMOE_GIT_DESCRIBE "unknown")
find_package(Git QUIET)
if(GIT_FOUND)
  execute_process(
    COMMAND ${GIT_EXECUTABLE} describe --always --dirty --tags
    WORKING_DIRECTORY ${PROJECT_SOURCE_DIR}
    OUTPUT_VARIABLE topomoe_described OUTPUT_STRIP_TRAILING_WHITESPACE
    ERROR_QUIET RESULT_VARIABLE topomoe_describe_failed)
  if(NOT topomoe_describe_failed AND topomoe_described)
    set(TOPOMOE_GIT_DESCRIBE ${topomoe_described})
  endif()
endif()
set(TOPOMOE_GENERATED_DIR ${PROJECT_BINARY_DIR}/generated)
configure_file(${CMAKE_CURRENT_LIST_DIR}/TopomoeVersion.hpp.in ${TOPOMOE_GENERATED_DIR}/TopomoeVersion.hpp @ONLY)

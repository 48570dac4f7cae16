# `cmake --install`: the libraries, include/topomoe, the CMake package `topomoe` and pkg-config files.
#
# For C++ everything is static, so whoever links us links what we link; header-only libraries (JSON, Boost) stay ours
# alone. For C and other languages there is libtopomoe.so, which brings what it needs.
# Component topomoe_development is what embeds, topomoe_program is the command.

include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

set(TOPOMOE_PACKAGE_DIR ${CMAKE_INSTALL_LIBDIR}/cmake/topomoe)
set(installed api plan rates topology planner kernels runtime)
if(TOPOMOE_HAVE_CUDA)
  list(APPEND installed kernels_cuda)
endif()
foreach(name IN LISTS installed)
  set_target_properties(topomoe_${name} PROPERTIES EXPORT_NAME ${name})
  list(APPEND installed_targets topomoe_${name})
endforeach()
install(TARGETS ${installed_targets} EXPORT topomoeTargets
        ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR} COMPONENT topomoe_development
        INCLUDES DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(DIRECTORY include/topomoe DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} COMPONENT topomoe_development
        FILES_MATCHING PATTERN "*.hpp" PATTERN "*.h")
install(TARGETS topomoe RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR} COMPONENT topomoe_program)

set_target_properties(topomoe_c PROPERTIES EXPORT_NAME c)
install(TARGETS topomoe_c EXPORT topomoeCTargets
        LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR} COMPONENT topomoe_development
        INCLUDES DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(EXPORT topomoeCTargets NAMESPACE topomoe:: DESTINATION ${TOPOMOE_PACKAGE_DIR} COMPONENT topomoe_development)
install(EXPORT topomoeTargets NAMESPACE topomoe:: DESTINATION ${TOPOMOE_PACKAGE_DIR} COMPONENT topomoe_development)
configure_package_config_file(cmake/topomoe-config.cmake.in topomoe-config.cmake
                              INSTALL_DESTINATION ${TOPOMOE_PACKAGE_DIR})
write_basic_package_version_file(topomoe-config-version.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/topomoe-config.cmake ${PROJECT_BINARY_DIR}/topomoe-config-version.cmake
        DESTINATION ${TOPOMOE_PACKAGE_DIR} COMPONENT topomoe_development)

# pkg-config, in the order in which a linker of static libraries wants them.
set(TOPOMOE_PC_LIBS -ltopomoe_runtime)
if(TOPOMOE_HAVE_CUDA)
  string(APPEND TOPOMOE_PC_LIBS " -ltopomoe_kernels_cuda")
endif()
string(APPEND TOPOMOE_PC_LIBS
  " -ltopomoe_kernels -ltopomoe_planner -ltopomoe_rates -ltopomoe_topology -ltopomoe_plan")
set(TOPOMOE_PC_REQUIRES "fmt pugixml hwloc")
set(external ${CMAKE_DL_LIBS})
if(TOPOMOE_HAVE_ONEDNN)
  list(APPEND external -ldnnl ${TOPOMOE_OPENMP_LIBRARIES})
endif()
if(TOPOMOE_HAVE_MPI)
  list(APPEND external ${MPI_CXX_LIBRARIES})
endif()
if(TOPOMOE_HAVE_CUDA)
  list(APPEND external -L${CUDAToolkit_LIBRARY_DIR} -lcublas -lcudart)
endif()
if(TOPOMOE_HAVE_NCCL)
  list(APPEND external ${NCCL_LIBRARY})
endif()
foreach(item IN LISTS external)
  if(IS_ABSOLUTE ${item})  # tools that read pkg-config's answer keep the order of -l only
    get_filename_component(directory ${item} DIRECTORY)
    get_filename_component(stem ${item} NAME_WE)
    string(REGEX REPLACE "^lib" "" stem ${stem})
    string(APPEND TOPOMOE_PC_LIBS " -L${directory} -l${stem}")
  elseif(item MATCHES "^-")
    string(APPEND TOPOMOE_PC_LIBS " ${item}")
  else()
    string(APPEND TOPOMOE_PC_LIBS " -l${item}")
  endif()
endforeach()
# From where it lies, so that `cmake --install --prefix` may put it anywhere.
file(RELATIVE_PATH TOPOMOE_PC_TO_PREFIX /prefix/${CMAKE_INSTALL_LIBDIR}/pkgconfig /prefix)
configure_file(cmake/topomoe.pc.in topomoe.pc @ONLY)
configure_file(cmake/topomoe-c.pc.in topomoe-c.pc @ONLY)
install(FILES ${PROJECT_BINARY_DIR}/topomoe.pc ${PROJECT_BINARY_DIR}/topomoe-c.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig
        COMPONENT topomoe_development)

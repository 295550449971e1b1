# Install and export: a relocatable package for find_package(nibble).

include(CMakePackageConfigHelpers)
set(package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/nibble)

install(TARGETS nibble EXPORT nibbleTargets
        LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR} ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(DIRECTORY include/nibble DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(EXPORT nibbleTargets NAMESPACE nibble:: DESTINATION ${package_dir})
configure_package_config_file(cmake/nibbleConfig.cmake.in nibbleConfig.cmake
                              INSTALL_DESTINATION ${package_dir})
write_basic_package_version_file(nibbleConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/nibbleConfig.cmake
              ${CMAKE_CURRENT_BINARY_DIR}/nibbleConfigVersion.cmake DESTINATION ${package_dir})

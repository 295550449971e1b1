# Collects src/arch/<family>.cpp into one table. Each file defines
# `std::span<const arch_spec> <family>_family();`. A static initialiser that registers itself would
# be dropped by the linker when nibble is a static library; this list is not.

file(GLOB arch_files CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/src/arch/*.cpp)
set(arch_declarations "")
set(arch_calls "")
foreach(file ${arch_files})
  get_filename_component(family ${file} NAME_WE)
  string(APPEND arch_declarations "std::span<const arch_spec> ${family}_family();\n")
  string(APPEND arch_calls "      ${family}_family(),\n")
endforeach()
set(nibble_arch_list ${CMAKE_CURRENT_BINARY_DIR}/arch_list.cpp)
configure_file(cmake/arch_list.cpp.in ${nibble_arch_list} @ONLY)

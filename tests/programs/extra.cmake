find_package(nlohmann_json REQUIRED)
target_link_libraries(${target} PRIVATE nlohmann_json::nlohmann_json)

# Where each program is: {"generate", "/.../nibble-generate"}, ...
set(programs "")
foreach(program generate inspect tokenize logits bench embed-in-app synth)
  string(APPEND programs "{\"${program}\", \"$<TARGET_FILE:nibble-${program}>\"},\n")
  add_dependencies(${target} nibble-${program})
endforeach()
file(GENERATE OUTPUT ${CMAKE_CURRENT_BINARY_DIR}/programs/$<CONFIG>/program_paths.inc
     CONTENT "${programs}")
target_include_directories(${target} PRIVATE ${CMAKE_CURRENT_BINARY_DIR}/programs/$<CONFIG>)

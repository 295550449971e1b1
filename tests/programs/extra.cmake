find_package(nlohmann_json REQUIRED)
target_link_libraries(${target} PRIVATE nlohmann_json::nlohmann_json)
target_sources(${target} PRIVATE ${PROJECT_SOURCE_DIR}/examples/perplexity_statistics.cpp)

# Where each program is: {"generate", "/.../nibble-generate"}, ...
set(programs "")
foreach(program generate batch inspect tokenize logits bench perplexity imatrix quantize synth embed-in-app plan devices)
  string(APPEND programs "{\"${program}\", \"$<TARGET_FILE:nibble-${program}>\"},\n")
  add_dependencies(${target} nibble-${program})
endforeach()
file(GENERATE OUTPUT ${CMAKE_CURRENT_BINARY_DIR}/programs/$<CONFIG>/program_paths.inc
     CONTENT "${programs}")
target_include_directories(${target} PRIVATE ${CMAKE_CURRENT_BINARY_DIR}/programs/$<CONFIG>)

# Programs on emulated processors; sanitizers cannot be emulated.
find_program(NIBBLE_QEMU_X86_64 qemu-x86_64)
if(NIBBLE_QEMU_X86_64 AND nibble_processor MATCHES "x86_64|amd64" AND NOT NIBBLE_SANITIZE)
  target_compile_definitions(${target} PRIVATE NIBBLE_QEMU_X86_64="${NIBBLE_QEMU_X86_64}")
endif()

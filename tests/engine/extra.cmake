find_package(nlohmann_json REQUIRED)
target_link_libraries(${target} PRIVATE nlohmann_json::nlohmann_json nibble_emulated)
target_sources(${target} PRIVATE ${CMAKE_CURRENT_SOURCE_DIR}/support/allocations.cpp)

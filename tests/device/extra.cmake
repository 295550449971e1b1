target_link_libraries(${target} PRIVATE nibble_emulated)

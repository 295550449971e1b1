target_link_libraries(${target} PRIVATE nibble_emulated ${CMAKE_DL_LIBS})
target_sources(${target} PRIVATE ${CMAKE_CURRENT_SOURCE_DIR}/support/allocations.cpp
                                 ${folder}/system_requests.cpp)

# What the object files may hold; see symbols.cmake. Not with flags that make every object need a
# newer CPU.
find_program(NIBBLE_NM nm)
find_program(NIBBLE_OBJDUMP objdump)
find_program(NIBBLE_GREP grep)
if(NIBBLE_NM AND NIBBLE_OBJDUMP AND NIBBLE_GREP AND CMAKE_SYSTEM_NAME STREQUAL "Linux"
   AND NOT CMAKE_CXX_FLAGS MATCHES "-march|-mavx")
  foreach(check symbols instructions)
    add_test(NAME "kernels: ${check} of object files"
             COMMAND ${CMAKE_COMMAND} -D CHECK=${check} -D NM=${NIBBLE_NM}
                     -D OBJDUMP=${NIBBLE_OBJDUMP} -D GREP=${NIBBLE_GREP}
                     -D "OBJECTS=$<JOIN:$<TARGET_OBJECTS:nibble>,|>"
                     -P ${CMAKE_CURRENT_SOURCE_DIR}/kernels/symbols.cmake)
  endforeach()
endif()

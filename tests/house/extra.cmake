# Every public header compiles alone, and with itself: one source for each, with nothing but what a
# user of nibble gets. Compiling it is the test.

file(GLOB_RECURSE public_headers CONFIGURE_DEPENDS RELATIVE ${PROJECT_SOURCE_DIR}/include
     ${PROJECT_SOURCE_DIR}/include/nibble/*.hpp)
set(alone_sources "")
foreach(header ${public_headers})
  string(MAKE_C_IDENTIFIER ${header} name)
  set(source ${CMAKE_CURRENT_BINARY_DIR}/header_alone/${name}.cpp)
  file(CONFIGURE OUTPUT ${source} CONTENT "#include <@header@>\n#include <@header@>\n" @ONLY)
  list(APPEND alone_sources ${source})
endforeach()
add_library(nibble_header_alone OBJECT ${alone_sources})
target_link_libraries(nibble_header_alone PRIVATE nibble::nibble)
nibble_developer_flags(nibble_header_alone)

include(${CMAKE_CURRENT_LIST_DIR}/readme.cmake)

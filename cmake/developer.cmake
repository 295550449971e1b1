# What developers of nibble want and users of nibble do not: ccache, warnings, sanitizers. And one
# thing that all of nibble is compiled with: results must not depend on the compiler's choice to fuse
# a product and a sum. On x86-64 there is nothing to fuse unless flags say so.

if(PROJECT_IS_TOP_LEVEL)
  if(NOT CMAKE_BUILD_TYPE AND NOT CMAKE_CONFIGURATION_TYPES)
    set(CMAKE_BUILD_TYPE Release CACHE STRING "" FORCE)
  endif()
  find_program(CCACHE ccache)
  if(CCACHE AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
    set(CMAKE_CXX_COMPILER_LAUNCHER ${CCACHE})
  endif()
  set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
endif()

if(NIBBLE_SANITIZE)
  add_compile_options(-fsanitize=${NIBBLE_SANITIZE} -fno-omit-frame-pointer
                      $<$<CXX_COMPILER_ID:GNU,Clang>:-fno-sanitize-recover=all>)
  add_link_options(-fsanitize=${NIBBLE_SANITIZE})
endif()

function(nibble_developer_flags target)
  if(NOT nibble_processor MATCHES "x86_64|amd64" OR CMAKE_CXX_FLAGS MATCHES "-march|-mfma")
    target_compile_options(${target} PRIVATE -ffp-contract=off)
  endif()
  target_compile_options(${target} PRIVATE -Wall -Wextra -Wshadow -Wconversion -Wno-sign-conversion
                                           $<$<BOOL:${NIBBLE_WERROR}>:-Werror>)
  # g++ 12 sees uninitialised members and overlaps inside libstdc++'s own functions and strings
  if(CMAKE_CXX_COMPILER_ID STREQUAL GNU)
    target_compile_options(${target} PRIVATE -Wno-restrict)
    if(NIBBLE_SANITIZE)
      target_compile_options(${target} PRIVATE -Wno-maybe-uninitialized)
    endif()
  endif()
endfunction()

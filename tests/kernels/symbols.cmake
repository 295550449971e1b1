# Checks the object files of nibble, OBJECTS, separated by "|".
#
# symbols: a unit compiled for one instruction set defines, besides its one function
# kernels_<isa>(), only names inside its own namespaces. A weak definition under a shared name could
# be the copy that the linker keeps for the whole program, and crash an older CPU.
#
# instructions: objects other than those for AVX and later hold no AVX instruction.

string(REPLACE "|" ";" OBJECTS "${OBJECTS}")
set(bad "")
set(checked 0)

function(check_symbols object isa)
  execute_process(COMMAND ${NM} --defined-only --demangle ${object}
                  OUTPUT_VARIABLE text COMMAND_ERROR_IS_FATAL ANY)
  # characters that mean something in lists
  string(REPLACE ";" "," text "${text}")
  string(REPLACE "[" "(" text "${text}")
  string(REPLACE "]" ")" text "${text}")
  string(REPLACE "\n" ";" lines "${text}")
  set(entry 0)
  foreach(line IN LISTS lines)
    if(NOT line MATCHES "^[0-9a-f]* ([A-Zuvw]) (.*)$")
      continue()  # local
    endif()
    set(kind ${CMAKE_MATCH_1})
    set(name "${CMAKE_MATCH_2}")
    if(kind STREQUAL "T" AND name MATCHES "^nibble::v0::cpu::kernels_${isa}\\(\\)$")
      set(entry 1)
    elseif(kind MATCHES "[WVuvw]" AND name MATCHES "(nibble::|xsimd_)isa_${isa}::")
      # a name of its own
    elseif(NOT name MATCHES "^DW\\.ref\\.__gxx_personality")
      string(APPEND bad "${object}: ${kind} ${name}\n")
    endif()
  endforeach()
  if(NOT entry)
    string(APPEND bad "${object}: no kernels_${isa}()\n")
  endif()
  set(bad "${bad}" PARENT_SCOPE)
endfunction()

function(check_instructions object)
  execute_process(COMMAND ${OBJDUMP} --disassemble --no-show-raw-insn ${object}
                  COMMAND ${GREP} -m 1 -E "%[yz]mm[0-9]|[[:space:]]v[a-z0-9]+ .*%xmm"
                  OUTPUT_VARIABLE found)
  if(found)
    string(APPEND bad "${object}: ${found}")
  endif()
  set(bad "${bad}" PARENT_SCOPE)
endfunction()

foreach(object IN LISTS OBJECTS)
  set(isa "")
  if(object MATCHES "/isa_([a-z0-9]+)\\.cpp\\.o$")
    set(isa ${CMAKE_MATCH_1})
  endif()
  if(CHECK STREQUAL "symbols" AND isa)
    check_symbols(${object} ${isa})
  elseif(CHECK STREQUAL "instructions" AND NOT isa MATCHES "avx")
    check_instructions(${object})
  else()
    continue()
  endif()
  math(EXPR checked "${checked} + 1")
endforeach()

message(STATUS "${CHECK}: ${checked} object files checked")
if(bad)
  message(FATAL_ERROR "not allowed:\n${bad}")
endif()
if(checked EQUAL 0)
  message(FATAL_ERROR "no object file was checked")
endif()

# Checks the object files of nibble, OBJECTS, separated by "|".
#
# symbols: a unit compiled for one instruction set defines, besides its one function
# kernels_<isa>(), only names inside its own namespaces. A weak definition under a shared name could
# be the copy that the linker keeps for the whole program, and crash an older CPU.
#
# instructions: every object is disassembled, and the assembler AS takes what came out for the
# processor that the object is for. ARCHITECTURES, separated by "|", says which that is: "baseline"
# and each instruction set, followed by "=" and the assembler's name of it. What a processor has is
# thus decided by the assembler's tables, and what is not known is refused. SCRATCH is a folder.

string(REPLACE "|" ";" OBJECTS "${OBJECTS}")
string(REPLACE "|" ";" ARCHITECTURES "${ARCHITECTURES}")
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

# objects: those for one processor, all at once.
function(check_instructions isa objects)
  set(architecture "")
  foreach(known IN LISTS ARCHITECTURES)
    if(known MATCHES "^${isa}=(.*)$")
      set(architecture ${CMAKE_MATCH_1})
    endif()
  endforeach()
  set(source ${SCRATCH}/${isa}.s)
  # Comments go; so do addresses, for "here"; and padding with more prefixes than can be written.
  # objdump calls g++'s `rep bsf` tzcnt: older processors run it as bsf, with the same result for
  # the numbers that g++ uses it for.
  execute_process(
    COMMAND ${OBJDUMP} --disassemble --no-show-raw-insn --no-addresses ${objects}
    COMMAND sed -nE "s,(#[[:space:]]|//).*,,; s,<[^>]*>,.,g; s,^\ttzcnt,\tbsf,; s,^\t(data16 )*,,p"
    COMMAND sort -u
    OUTPUT_FILE ${source} COMMAND_ERROR_IS_FATAL ANY)
  file(SIZE ${source} size)
  execute_process(COMMAND ${AS} -march=${architecture} -o ${SCRATCH}/${isa}.o ${source}
                  ERROR_VARIABLE errors RESULT_VARIABLE failed)
  if(failed OR size EQUAL 0)
    string(SUBSTRING "${errors}" 0 2000 errors)
    string(APPEND bad "for ${architecture}, of ${objects}:\n${errors}")
  endif()
  set(bad "${bad}" PARENT_SCOPE)
endfunction()

set(baseline "")
foreach(object IN LISTS OBJECTS)
  if(NOT object MATCHES "/isa_([a-z0-9_]+)\\.cpp\\.o$")
    list(APPEND baseline ${object})
    continue()
  endif()
  set(isa ${CMAKE_MATCH_1})
  if(CHECK STREQUAL "symbols")
    check_symbols(${object} ${isa})
  else()
    check_instructions(${isa} ${object})
  endif()
  math(EXPR checked "${checked} + 1")
endforeach()
if(CHECK STREQUAL "instructions")
  list(LENGTH baseline number)
  if(number EQUAL 0)
    string(APPEND bad "no object is for every processor\n")
  endif()
  check_instructions(baseline "${baseline}")
  math(EXPR checked "${checked} + ${number}")
endif()

message(STATUS "${CHECK}: ${checked} object files checked")
if(bad)
  message(FATAL_ERROR "not allowed:\n${bad}")
endif()
if(checked EQUAL 0)
  message(FATAL_ERROR "no object file was checked")
endif()

# Builds and runs a project that uses nibble from outside its tree.
#   KIND    static, shared: install, move the installation, find_package there; subdirectory
#   SOURCE  nibble's sources
#   WORK    a scratch folder; what is built there stays, so that a second run is quick
#   MODEL   a model to generate with, if the file exists
# and what to build with: GENERATOR, COMPILER, LAUNCHER, BUILD_TYPE, FLAGS, NM, JOBS.

cmake_minimum_required(VERSION 3.25)

function(run)
  execute_process(COMMAND ${ARGV} RESULT_VARIABLE status OUTPUT_VARIABLE output ERROR_VARIABLE output)
  if(NOT status EQUAL 0)
    list(JOIN ARGV " " command)
    message(FATAL_ERROR "${command}\nended with ${status}:\n${output}")
  endif()
  set(output "${output}" PARENT_SCOPE)
endfunction()

set(options -G ${GENERATOR} -D CMAKE_CXX_COMPILER=${COMPILER} -D CMAKE_BUILD_TYPE=${BUILD_TYPE}
    -D CMAKE_CXX_COMPILER_LAUNCHER=${LAUNCHER} "-DCMAKE_CXX_FLAGS=${FLAGS}")

# The shared library exports nibble's public names and nothing else.
function(check_exports library)
  run(${NM} --dynamic --defined-only --demangle ${library})
  string(REPLACE ";" "," output "${output}")
  string(REPLACE "[" "(" output "${output}")
  string(REPLACE "]" ")" output "${output}")
  string(REPLACE "\n" ";" lines "${output}")
  set(count 0)
  set(foreign "")
  foreach(line IN LISTS lines)
    if(line MATCHES "^[0-9a-f]* [A-Za-z] (.*)$")
      set(name "${CMAKE_MATCH_1}")
      math(EXPR count "${count} + 1")
      if(NOT name MATCHES "^((typeinfo|typeinfo name|vtable|VTT) for )?nibble::v0::"
         OR name MATCHES "nibble::v0::cpu::")  # kernels are nobody's business
        string(APPEND foreign "${name}\n")
      endif()
    endif()
  endforeach()
  if(count LESS 20)
    message(FATAL_ERROR "only ${count} names are exported from ${library}")
  endif()
  if(foreign)
    message(FATAL_ERROR "${library} exports what is not nibble's public interface:\n${foreign}")
  endif()
  message(STATUS "${count} names are exported, all nibble's")
endfunction()

set(build ${WORK}/consumer)
if(KIND STREQUAL "subdirectory")
  run(${CMAKE_COMMAND} -S ${SOURCE}/tests/consumer/subdirectory -B ${build} ${options}
      -D NIBBLE_SOURCE=${SOURCE})
else()
  set(shared OFF)
  if(KIND STREQUAL "shared")
    set(shared ON)
  endif()
  # The programs are built with the shared library: they show that it exports what they need.
  run(${CMAKE_COMMAND} -S ${SOURCE} -B ${WORK}/nibble ${options} -D BUILD_SHARED_LIBS=${shared}
      -D NIBBLE_BUILD_TESTS=OFF -D NIBBLE_BUILD_BENCH=OFF -D NIBBLE_BUILD_EXAMPLES=${shared}
      -D NIBBLE_WERROR=${WERROR} -D NIBBLE_CUDA=OFF -D NIBBLE_HIP=OFF
      -D CMAKE_INSTALL_PREFIX=${WORK}/first)
  run(${CMAKE_COMMAND} --build ${WORK}/nibble --parallel ${JOBS})
  file(REMOVE_RECURSE ${WORK}/first ${WORK}/moved ${build})
  run(${CMAKE_COMMAND} --install ${WORK}/nibble)
  file(RENAME ${WORK}/first ${WORK}/moved)

  file(GLOB_RECURSE package_files ${WORK}/moved/*.cmake)
  foreach(file ${package_files})
    file(READ ${file} text)
    foreach(place ${SOURCE} ${WORK})
      string(FIND "${text}" "${place}/" found)
      if(NOT found EQUAL -1)
        message(FATAL_ERROR "${file} names ${place}: the package cannot be moved")
      endif()
    endforeach()
  endforeach()
  if(shared)
    file(GLOB_RECURSE library ${WORK}/moved/libnibble.so)
    check_exports(${library})
    run(${WORK}/moved/bin/nibble-inspect --help)
  endif()
  run(${CMAKE_COMMAND} -S ${SOURCE}/tests/consumer/installed -B ${build} ${options}
      -D CMAKE_PREFIX_PATH=${WORK}/moved)
endif()
run(${CMAKE_COMMAND} --build ${build} --parallel ${JOBS})

set(model "")
if(EXISTS "${MODEL}")
  set(model ${MODEL})
else()
  message(STATUS "no model at ${MODEL}: nothing is generated")
endif()
run(${build}/consumer ${model})
message(STATUS "the consumer says:\n${output}")
if(NOT output MATCHES "nibble [0-9]+\\.[0-9]+" OR NOT output MATCHES "caught: .*no-such-model.gguf")
  message(FATAL_ERROR "the consumer did not say what it should")
endif()
if(model AND NOT output MATCHES "generated:.*[a-z]")
  message(FATAL_ERROR "nothing was generated")
endif()

// Memory that is not there, as the library's own exception.
#pragma once

#include <new>
#include <nibble/base/concat.hpp>
#include <nibble/base/error.hpp>
#include <string>

namespace nibble::inline NIBBLE_ABI {

// Runs work() for `what`: an allocation that fails in it becomes error (out_of_memory). Public
// functions whose work allocates are wrapped in this, so that nothing else leaves the library.
template <typename Work>
decltype(auto) with_memory_for(const char* what, Work&& work) {
  try {
    return work();
  } catch (const std::bad_alloc&) {
    throw error(errc::out_of_memory,
                concat("there is not enough memory for ", what,
                       "; close other programs, or raise the limit that this one runs under."));
  }
}

}  // namespace nibble::inline NIBBLE_ABI

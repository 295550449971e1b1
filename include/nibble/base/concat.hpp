// Joins text and numbers into one string; what error sentences are made of.
#pragma once

#include <nibble/base/config.hpp>
#include <sstream>
#include <string>

namespace nibble::inline NIBBLE_ABI {

template <typename... Parts>
[[nodiscard]] std::string concat(const Parts&... parts) {
  std::ostringstream out;
  out.exceptions(std::ios::badbit);  // no memory is an exception, and not half a sentence
  (out << ... << parts);
  return std::move(out).str();
}

}  // namespace nibble::inline NIBBLE_ABI

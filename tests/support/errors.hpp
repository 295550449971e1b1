// Tests of errors: what was thrown, and what its sentence must say.
#pragma once

#include <initializer_list>
#include <nibble/base/error.hpp>
#include <stdexcept>
#include <string>
#include <string_view>

#include "catch.hpp"

namespace test {

// The error that `work` throws; its code and sentence are then compared.
template <typename F>
nibble::error thrown(F&& work) {
  try {
    work();
  } catch (const nibble::error& e) {
    return e;
  }
  FAIL("nothing was thrown");
  throw std::logic_error("unreachable");
}

inline void check_error(const nibble::error& e, nibble::errc code,
                        std::initializer_list<std::string_view> parts) {
  INFO(e.what());
  CHECK(e.code() == code);
  for (const std::string_view part : parts) {
    INFO("expected in it: " << part);
    CHECK(std::string_view(e.what()).find(part) != std::string_view::npos);
  }
}

}  // namespace test

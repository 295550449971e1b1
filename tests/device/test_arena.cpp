#include <cstdint>
#include <limits>
#include <nibble/base/error.hpp>
#include <string>
#include <utility>

#include "catch.hpp"
#include "device/arena.hpp"

TEST_CASE("an arena is aligned, zero and writable to its last byte") {
  for (const std::size_t bytes : {std::size_t{1}, std::size_t{4097}, std::size_t{5} << 20}) {
    nibble::arena a(bytes, "a test");
    REQUIRE(a.bytes() == bytes);
    REQUIRE(reinterpret_cast<std::uintptr_t>(a.data()) % nibble::arena::alignment == 0);
    REQUIRE(a.data()[0] == std::byte{0});
    REQUIRE(a.data()[bytes - 1] == std::byte{0});
    a.data()[bytes - 1] = std::byte{1};
    nibble::arena moved = std::move(a);
    REQUIRE(moved.data()[bytes - 1] == std::byte{1});
    REQUIRE(a.data() == nullptr);
  }
}

TEST_CASE("an arena of no bytes has no memory") {
  REQUIRE(nibble::arena(0, "a test").data() == nullptr);
}

TEST_CASE("too many bytes are an error that names them") {
  for (const std::size_t bytes :
       {std::size_t{1} << 60, std::numeric_limits<std::size_t>::max() - 5}) {
    try {
      nibble::arena a(bytes, "weights");
      FAIL("made an arena of " << bytes << " bytes");
    } catch (const nibble::error& e) {
      REQUIRE(e.code() == nibble::errc::out_of_memory);
      const std::string what = e.what();
      REQUIRE(what.find(std::to_string(bytes)) != std::string::npos);
      REQUIRE(what.find("weights") != std::string::npos);
    }
  }
}

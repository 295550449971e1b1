#include <cstdint>
#include <fstream>
#include <limits>
#include <nibble/formats/list.hpp>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "catch.hpp"

using nibble::errc;
using nibble::error;
using nibble::format_id;

TEST_CASE("names and ids are unique, in both lists together") {
  std::set<std::string_view> names;
  std::set<std::uint32_t> ids;
  const auto add = [&](const nibble::format_info& info) {
    INFO(info.name);
    CHECK(names.insert(info.name).second);
    CHECK(ids.insert(static_cast<std::uint32_t>(info.id)).second);
    CHECK(nibble::find_format_info(info.id)->name == info.name);
    CHECK(nibble::format_name(info.id) == info.name);
  };
  for (const auto& info : nibble::format_infos) add(info);
  for (const auto& info : nibble::foreign_format_infos) {
    add(info);
    CHECK_FALSE(nibble::has_format(info.id));
    CHECK_FALSE(nibble::find_format(info.name));
  }
  CHECK(nibble::format_name(format_id{4321}) == "type 4321");
  CHECK(nibble::find_format_info(format_id{4321}) == nullptr);
}

TEST_CASE("index, name and dispatch agree with the list's order") {
  int position = 0;
  nibble::for_each_format([&]<typename F>(F) {
    INFO(F::name);
    CHECK(nibble::index_of<F> == position);
    CHECK(nibble::format_index(nibble::id_of<F>) == position);
    CHECK(nibble::find_format(F::name) == nibble::id_of<F>);
    const auto name = nibble::with_format(nibble::id_of<F>, []<typename G>(G) { return G::name; });
    CHECK(name == F::name);
    ++position;
  });
  CHECK(position == nibble::format_count);
  try {
    nibble::with_format(format_id{29}, [](auto) {});
    FAIL("no error");
  } catch (const error& e) {
    CHECK(e.code() == errc::unsupported);
    CHECK(std::string(e.what()).find("iq1_m") != std::string::npos);
    CHECK(std::string(e.what()).find("q4_k") != std::string::npos);
  }
}

TEST_CASE("row sizes are checked for whole blocks and for overflow") {
  constexpr auto max = std::numeric_limits<std::uint64_t>::max();
  const auto code = [](std::uint32_t id, std::uint64_t n) {
    try {
      nibble::row_bytes(format_id{id}, n);
    } catch (const error& e) {
      return e.code();
    }
    return errc::cancelled;
  };
  for (const auto& info : nibble::format_infos) {
    INFO(info.name);
    CHECK(nibble::row_bytes(info.id, 0) == 0);
    CHECK(nibble::row_bytes(info.id, 4 * info.block_size) == 4 * info.block_bytes);
    if (info.block_size > 1) {
      CHECK_FALSE(nibble::checked_row_bytes(info.id, info.block_size + 1));
      CHECK_FALSE(nibble::checked_row_bytes(info.id, info.block_size - 1));
    }
  }
  CHECK_FALSE(nibble::checked_row_bytes(format_id{0}, max / 4 + 1));  // f32
  CHECK(nibble::checked_row_bytes(format_id{0}, max / 4) == max / 4 * 4);
  CHECK_FALSE(nibble::checked_row_bytes(format_id{8}, max - 31));  // q8_0: more bytes than values
  CHECK(nibble::row_bytes(format_id{26}, 10) == 40);               // i32, a foreign type
  CHECK(code(0, max) == errc::invalid_argument);
  CHECK(code(12, 100) == errc::invalid_argument);
  CHECK(code(4321, 32) == errc::unsupported);
}

TEST_CASE("docs/formats.md says what the list says") {
  std::ifstream in(NIBBLE_SOURCE_DIR "/docs/formats.md");
  REQUIRE(in);
  std::vector<std::string> rows;
  for (std::string line; std::getline(in, line);) {
    if (line.rfind("| `", 0) == 0) rows.push_back(line);
  }
  std::size_t next = 0;
  nibble::for_each_format([&]<typename F>(F) {
    constexpr int bytes = sizeof(typename F::block);
    std::ostringstream row;
    row << "| `" << F::name << "` | " << F::gguf_id << " | " << F::block_size << " | " << bytes
        << " | " << 8.0 * bytes / F::block_size << " | ";
    if constexpr (nibble::block_format<F>) {
      row << F::group_size << " | " << F::min_code << " … " << F::max_code << " | "
          << (F::has_offset ? "yes" : "no");
    } else {
      row << "– | – | –";
    }
    REQUIRE(next < rows.size());
    // the last column is prose
    CHECK(rows[next].substr(0, row.str().size() + 3) == row.str() + " | ");
    ++next;
  });
  CHECK(next == rows.size());
}

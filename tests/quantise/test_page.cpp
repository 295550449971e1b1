// docs/quantisation.md: its tables are made by scripts, and none lacks a row.

#include <algorithm>
#include <fstream>
#include <nibble/formats/list.hpp>
#include <nibble/quantise/mix.hpp>
#include <set>
#include <string>
#include <vector>

#include "catch.hpp"

namespace {

// The first cells of each table's rows.
std::vector<std::multiset<std::string>> tables_of(const std::string& path) {
  std::ifstream in(path);
  REQUIRE(in);
  std::vector<std::multiset<std::string>> tables;
  bool inside = false;
  for (std::string line; std::getline(in, line);) {
    const bool row = line.rfind("| ", 0) == 0;
    if (row && inside) {
      std::string cell = line.substr(2, line.find(" |", 2) - 2);
      cell.erase(std::remove(cell.begin(), cell.end(), '`'), cell.end());
      tables.back().insert(cell);
    } else if (row) {
      tables.emplace_back();  // the head
    }
    inside = row || (inside && line.rfind("|---", 0) == 0);
  }
  return tables;
}

}  // namespace

TEST_CASE("docs/quantisation.md has every format's errors, and every type on two models") {
  std::multiset<std::string> formats, types;
  for (const auto& info : nibble::format_infos) formats.emplace(info.name);
  for (const auto& mix : nibble::all_type_mixes()) types.emplace(mix.name);
  const auto tables = tables_of(NIBBLE_SOURCE_DIR "/docs/quantisation.md");
  CHECK(std::count(tables.begin(), tables.end(), formats) == 2);  // with importance and without
  CHECK(std::count(tables.begin(), tables.end(), types) == 2);
}

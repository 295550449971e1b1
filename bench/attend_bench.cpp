// Attention of queries over the keys and values of a context, by the type of these, at several
// depths and head sizes: one query, four that share them, and the 64 of a prompt's tokens. Heads
// are visited in turn, 64 MiB of them, so that keys and values come from memory. In one case pages
// of other sizes are compared, too.
#include <cstring>
#include <nibble/device/kv_type.hpp>
#include <vector>

#include "cpu/attend_scratch.hpp"
#include "cpu/select.hpp"
#include "harness.hpp"

namespace {

using nibble::kv_type;
using nibble::cpu::kernel_table;

constexpr std::size_t all_bytes = std::size_t{64} << 20;

// Rows of `length` values: codes one after another in one half, scales in what follows.
std::shared_ptr<bench::buffer> make_rows(const kernel_table& table, kv_type type,
                                         std::int64_t length) {
  auto all = std::make_shared<bench::buffer>(all_bytes);
  const std::size_t codes = nibble::code_bytes(type, length);
  const std::size_t scales = nibble::scale_bytes(type, length);
  const std::size_t rows = all_bytes / (codes + scales), different = 61;
  auto* const to = reinterpret_cast<std::uint8_t*>(all->data());
  for (std::size_t r = 0; r < rows; ++r) {
    std::uint8_t* const row = to + r * codes;
    std::uint8_t* const row_scales = to + rows * codes + r * scales;
    if (r >= different) {
      std::memcpy(row, row - different * codes, codes);
      std::memcpy(row_scales, row_scales - different * scales, scales);
      continue;
    }
    std::vector<float> x;
    for (std::int64_t i = 0; i < length; ++i) {
      const auto n = r * static_cast<std::size_t>(length) + static_cast<std::size_t>(i);
      x.push_back(static_cast<float>(n * 2654435761u % 1024) / 512 - 1);
    }
    table.store_row[static_cast<int>(type)](x.data(), length, row, row_scales);
  }
  return all;
}

struct attend_case {
  kv_type type;
  std::int32_t length;
  int queries;
  std::int64_t depth;
  std::int32_t page_tokens;
};

void attend(benchmark::State& state, const kernel_table& table, const attend_case& c) {
  const std::string name = "rows " + std::string(info_of(c.type).name) + std::to_string(c.length);
  const auto all = bench::shared_buffer(name, [&] { return make_rows(table, c.type, c.length); });
  const std::size_t codes = nibble::code_bytes(c.type, c.length);
  const std::size_t scales = nibble::scale_bytes(c.type, c.length);
  const std::size_t rows = all_bytes / (codes + scales);
  const auto* const data = reinterpret_cast<const std::uint8_t*>(all->data());
  const auto page_rows = static_cast<std::size_t>(c.page_tokens);
  const std::int64_t pages = c.depth / c.page_tokens;
  const auto heads = static_cast<std::int64_t>(rows / (2 * page_rows)) / pages;
  const auto rows_at = [&](std::size_t r) -> nibble::cpu::kv_rows {
    return {data + r * codes, data + rows * codes + r * scales};
  };
  std::vector<nibble::cpu::kv_page> list;
  for (std::size_t i = 0; i < static_cast<std::size_t>(heads * pages); ++i) {
    list.push_back(
        {rows_at(2 * i * page_rows), rows_at((2 * i + 1) * page_rows), c.page_tokens, false});
  }
  const std::vector<float> q(static_cast<std::size_t>(c.length * c.queries), 0.05f);
  std::vector<float> out(q.size());
  std::vector<nibble::cpu::attend_query> queries;
  for (int i = 0; i < c.queries; ++i) {
    const std::int64_t at = std::int64_t{i} * c.length;
    queries.push_back({q.data() + at, nullptr, out.data() + at, 0, c.depth, nullptr});
  }
  const bench::buffer scratch(
      sizeof(float) * static_cast<std::size_t>(nibble::attend_scratch_floats(c.length, c.length)));
  std::int64_t at = 0;
  const double each = 2.0 * static_cast<double>(c.depth);
  const bench::peak_loops& loops = bench::loops_of(table.isa);
  bench::measure(
      state, {.loops = loops, .compute = loops.fp32},
      {.macs = each * c.length * c.queries, .bytes = each * static_cast<double>(codes + scales)},
      [&] {
        table.attend({.key_type = static_cast<std::int32_t>(c.type),
                      .value_type = static_cast<std::int32_t>(c.type),
                      .queries = queries.data(),
                      .n_queries = c.queries,
                      .pages = list.data() + at * pages,
                      .n_pages = pages,
                      .first = 0,
                      .key_length = c.length,
                      .value_length = c.length,
                      .softcap = 0,
                      .scratch = reinterpret_cast<float*>(scratch.data()),
                      .states = nullptr});
        at = (at + 1) % heads;
      });
}

void add(const kernel_table* table, const attend_case& c, const std::string& more = "") {
  const std::string what = std::string(info_of(c.type).name) + " x " + std::to_string(c.length) +
                           ", " + std::to_string(c.queries) + more;
  benchmark::RegisterBenchmark(bench::join("attend", what, table->isa, c.depth).c_str(),
                               [=](benchmark::State& state) { attend(state, *table, c); })
      ->Unit(benchmark::kMicrosecond);
}

const bool added = [] {
  for (const kernel_table* table : nibble::cpu::available_kernels()) {
    for (const kv_type type :
         {kv_type::f16, kv_type::q8, kv_type::q8_0, kv_type::q4, kv_type::f32}) {
      for (const std::int32_t length : {64, 128}) {
        for (const int queries : {1, 4, 64}) {
          for (const std::int64_t depth : {256, 4096, 32768}) {
            add(table, {type, length, queries, depth, 64});
          }
        }
      }
      for (const int queries : {1, 64}) {
        for (const std::int32_t page_tokens : {16, 32, 128, 256}) {
          add(table, {type, 128, queries, 4096, page_tokens},
              ", pages of " + std::to_string(page_tokens));
        }
      }
    }
  }
  return true;
}();

}  // namespace

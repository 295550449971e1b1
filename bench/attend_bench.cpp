// Attention of queries over the keys and values of a context, at several depths and head sizes: one
// query, four that share them, and the 64 of a prompt's tokens. Heads are visited in turn, 64 MiB
// of them, so that keys and values come from memory.
#include <nibble/base/half.hpp>
#include <vector>

#include "cpu/select.hpp"
#include "harness.hpp"

namespace {

using nibble::cpu::kernel_table;

constexpr std::size_t all_bytes = std::size_t{64} << 20;
constexpr std::int32_t page_tokens = 64;

template <typename Storage>
std::shared_ptr<bench::buffer> make_values() {
  auto all = std::make_shared<bench::buffer>(all_bytes);
  auto* const to = reinterpret_cast<Storage*>(all->data());
  for (std::size_t i = 0; i < all->size() / sizeof(Storage); ++i) {
    const float x = static_cast<float>(i * 2654435761u % 1024) / 512 - 1;
    if constexpr (sizeof(Storage) == 2) {
      to[i] = nibble::to_half(x);
    } else {
      to[i] = x;
    }
  }
  return all;
}

template <typename Storage>
void attend(benchmark::State& state, const kernel_table& table, std::int32_t head,
            std::int64_t depth, int queries) {
  const auto all =
      bench::shared_buffer(sizeof(Storage) == 2 ? "f16 keys" : "f32 keys", make_values<Storage>);
  const auto* const data = reinterpret_cast<const Storage*>(all->data());
  const std::int64_t page_values = std::int64_t{2} * page_tokens * head;
  const std::int64_t pages = depth / page_tokens;
  const auto heads =
      static_cast<std::int64_t>(all->size() / sizeof(Storage)) / (pages * page_values);
  std::vector<nibble::cpu::kv_page> list;
  for (std::int64_t i = 0; i < heads * pages; ++i) {
    const Storage* const key = data + i * page_values;
    list.push_back({key, key + page_values / 2, page_tokens});
  }
  const std::vector<float> q(static_cast<std::size_t>(head * queries), 0.05f);
  std::vector<float> out(q.size());
  std::vector<nibble::cpu::attend_query> list_of_queries;
  for (int i = 0; i < queries; ++i) {
    list_of_queries.push_back({q.data() + i * head, out.data() + i * head, 0, depth, nullptr});
  }
  using nibble::cpu::attend_block;
  const bench::buffer scratch(
      sizeof(float) * static_cast<std::size_t>(nibble::cpu::attend_queries * (attend_block + head) +
                                               attend_block * head));
  const auto run = sizeof(Storage) == 2 ? table.attend_f16 : table.attend_f32;
  std::int64_t at = 0;
  const double values = 2.0 * static_cast<double>(depth) * head;
  const bench::peak_loops& loops = bench::loops_of(table.isa);
  bench::measure(state, {.loops = loops, .compute = loops.fp32},
                 {.macs = values * queries, .bytes = values * sizeof(Storage)}, [&] {
                   run({.queries = list_of_queries.data(),
                        .n_queries = queries,
                        .pages = list.data() + at * pages,
                        .n_pages = pages,
                        .first = 0,
                        .key_length = head,
                        .value_length = head,
                        .softcap = 0,
                        .scratch = reinterpret_cast<float*>(scratch.data()),
                        .states = nullptr});
                   at = (at + 1) % heads;
                 });
}

template <typename Storage>
void add(const kernel_table* table, const std::string& type) {
  for (const std::int32_t head : {64, 128, 256}) {
    for (const int queries : {1, 4, 64}) {
      for (const std::int64_t depth : {256, 4096, 32768}) {
        const std::string what =
            type + " x " + std::to_string(head) + ", " + std::to_string(queries);
        benchmark::RegisterBenchmark(
            bench::join("attend", what, table->isa, depth).c_str(),
            [=](benchmark::State& state) { attend<Storage>(state, *table, head, depth, queries); })
            ->Unit(benchmark::kMicrosecond);
      }
    }
  }
}

const bool added = [] {
  for (const kernel_table* table : nibble::cpu::available_kernels()) {
    add<nibble::half>(table, "f16");
    add<float>(table, "f32");
  }
  return true;
}();

}  // namespace

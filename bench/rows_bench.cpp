// Kernels over single rows, which lie in the nearest cache: activations on their way from one
// product to the next, and rows of weights decoded to floats.
#include <nibble/device/kv_type.hpp>
#include <nibble/formats/list.hpp>
#include <vector>

#include "cpu/select.hpp"
#include "harness.hpp"

namespace {

using nibble::cpu::kernel_table;

constexpr std::int64_t n = 2048;  // values of a row

struct row {
  std::vector<float> x = std::vector<float>(n, 0.5f), y = std::vector<float>(n, 1.0f),
                     out = std::vector<float>(n);
  std::vector<std::int8_t> q = std::vector<std::int8_t>(n);
  std::vector<std::int16_t> sum = std::vector<std::int16_t>(n / 16);
};

struct row_kernel {
  const char* name;
  double bytes;  // that are read and written for a value
  void (*run)(const kernel_table& table, row& r);
};

template <int Kind>
void gate(const kernel_table& t, row& r) {
  t.gate[Kind](r.x.data(), r.y.data(), n, r.out.data());
}

// Heads of keys or values.
constexpr std::int64_t head = 128;

template <nibble::kv_type Type>
void store(const kernel_table& t, row& r) {
  constexpr std::size_t codes = nibble::code_bytes(Type, head);
  auto* const to = reinterpret_cast<std::byte*>(r.out.data());
  for (std::int64_t i = 0; i < n / head; ++i) {
    t.store_row[static_cast<int>(Type)](r.x.data() + i * head, head,
                                        to + static_cast<std::size_t>(i) * codes,
                                        r.sum.data() + i * (head / 32));
  }
}
void hadamard(const kernel_table& t, row& r) {
  for (std::int64_t i = 0; i < n; i += head) t.hadamard(r.x.data() + i, head);
}

constexpr row_kernel row_kernels[] = {
    {"quantise_q8", 4 + 1 + 4.0 / 32 + 2.0 / 16,
     [](const kernel_table& t, row& r) {
       t.quantise_q8(r.x.data(), n, r.q.data(), r.out.data(), r.sum.data());
     }},
    {"rms_norm", 12,
     [](const kernel_table& t, row& r) {
       t.rms_norm(r.x.data(), r.y.data(), 1e-5f, n, r.out.data());
     }},
    // a rotation by 0 (y: cosines, out: sines), so that values stay as they are
    {"rope_norm", 12,
     [](const kernel_table& t, row& r) {
       t.rope_norm(r.x.data(), r.y.data(), r.out.data(), n / 2);
     }},
    {"rope_neox", 12,
     [](const kernel_table& t, row& r) {
       t.rope_neox(r.x.data(), r.y.data(), r.out.data(), n / 2);
     }},
    {"gate_silu", 12, gate<0>},
    {"gate_gelu_tanh", 12, gate<1>},
    {"gate_relu_squared", 12, gate<2>},
    {"gate_swiglu_clamped", 12, gate<3>},
    {"add_scaled", 12,
     [](const kernel_table& t, row& r) { t.add_scaled(r.x.data(), 1e-9f, n, r.out.data()); }},
    {"store_f16", 6, store<nibble::kv_type::f16>},
    {"store_bf16", 6, store<nibble::kv_type::bf16>},
    {"store_q8_0", 4 + 1 + 2.0 / 32, store<nibble::kv_type::q8_0>},
    {"store_q4_0", 4 + 0.5 + 2.0 / 32, store<nibble::kv_type::q4_0>},
    {"store_q8", 4 + 1 + 2.0 / 128, store<nibble::kv_type::q8>},
    {"store_q4", 4 + 0.5 + 2.0 / 128, store<nibble::kv_type::q4>},
    {"hadamard", 8, hadamard},
};

bench::limits cache_of(const kernel_table& table) {
  return {.loops = bench::loops_of(table.isa), .source = bench::limits::bytes_from::cache};
}

template <typename F>
void decode(benchmark::State& state, const kernel_table& table) {
  const std::vector<typename F::block> from(n / F::block_size);  // zeros
  std::vector<float> to(n);
  const double bytes = static_cast<double>(from.size() * sizeof from[0] + n * sizeof(float));
  bench::measure(state, cache_of(table), {.bytes = bytes},
                 [&] { table.decode[nibble::index_of<F>](from.data(), n, to.data()); });
}

const bool added = [] {
  for (const kernel_table* table : nibble::cpu::available_kernels()) {
    for (const row_kernel& kernel : row_kernels) {
      benchmark::RegisterBenchmark(bench::join("rows", kernel.name, table->isa, n).c_str(),
                                   [=, &kernel](benchmark::State& state) {
                                     row r;
                                     bench::measure(state, cache_of(*table),
                                                    {.bytes = kernel.bytes * n},
                                                    [&] { kernel.run(*table, r); });
                                   });
    }
    nibble::for_each_format([&]<typename F>(F) {
      benchmark::RegisterBenchmark(bench::join("decode", F::name, table->isa, n).c_str(),
                                   [=](benchmark::State& state) { decode<F>(state, *table); });
    });
  }
  return true;
}();

}  // namespace

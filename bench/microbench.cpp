// Speed of the CPU kernels: int8 products for each format, instruction set and number of tokens.
//
//   nibble-microbench --benchmark_filter='q4_0/avx2'
//
// One thread. The weights, 64 MiB, come from memory again for each pass, as in a model. GMAC/s
// counts multiply-adds, GB/s bytes of weights.
#include <benchmark/benchmark.h>

#include <cstring>
#include <nibble/formats/list.hpp>
#include <random>
#include <string>
#include <vector>

#include "cpu/select.hpp"

namespace {

// Random codes under scales of 1.
template <typename F>
std::vector<typename F::block> random_blocks(std::size_t count) {
  std::mt19937 random(1);
  std::vector<typename F::block> blocks(count);
  for (auto& b : blocks) {
    std::uint8_t bytes[sizeof b];
    for (auto& byte : bytes) byte = static_cast<std::uint8_t>(random() >> 7);
    std::memcpy(&b, bytes, sizeof b);
    if constexpr (requires { b.d; }) b.d = nibble::to_half(1.0f);
    if constexpr (requires { b.m; }) b.m = nibble::to_half(1.0f);
    if constexpr (requires { b.dmin; }) b.dmin = nibble::to_half(1.0f);
    if constexpr (requires { b.e; }) b.e = 127;
  }
  return blocks;
}

template <typename F>
void matmul_q8(benchmark::State& state, const nibble::cpu::kernel_table& table,
               std::int64_t tokens) {
  constexpr std::int64_t columns = 2048;
  const std::size_t row_bytes = columns / F::block_size * sizeof(typename F::block);
  // enough rows to leave the caches where bandwidth matters, few where arithmetic does
  const auto rows =
      static_cast<std::int64_t>((std::size_t{64} << 20) / row_bytes) / (tokens > 4 ? 16 : 1);
  const auto weights = random_blocks<F>(static_cast<std::size_t>(rows * columns / F::block_size));

  const auto n = static_cast<std::size_t>(tokens * columns);
  std::vector<float> x(n);
  for (std::size_t i = 0; i < n; ++i) x[i] = static_cast<float>(i % 97) - 48;
  std::vector<std::int8_t> q(n);
  std::vector<float> scale(n / 32), out(static_cast<std::size_t>(tokens * rows));
  std::vector<std::int16_t> sum(n / 16);
  table.quantise_q8(x.data(), static_cast<std::int64_t>(n), q.data(), scale.data(), sum.data());

  for (auto _ : state) {
    table.matmul_q8[nibble::index_of<F>]({weights.data(), row_bytes, rows, columns},
                                         {q.data(), scale.data(), sum.data(), columns}, tokens,
                                         out.data(), rows);
    benchmark::DoNotOptimize(out.data());
    benchmark::ClobberMemory();
  }
  const auto passes = static_cast<double>(state.iterations()) * static_cast<double>(rows);
  state.counters["GMAC/s"] = benchmark::Counter(
      passes * static_cast<double>(columns * tokens) * 1e-9, benchmark::Counter::kIsRate);
  state.counters["GB/s"] = benchmark::Counter(passes * static_cast<double>(row_bytes) * 1e-9,
                                              benchmark::Counter::kIsRate);
}

}  // namespace

int main(int argc, char** argv) {
  for (const nibble::cpu::kernel_table* table : nibble::cpu::available_kernels()) {
    nibble::for_each_format([&]<typename F>(F) {
      if constexpr (nibble::block_format<F>) {
        for (const std::int64_t tokens : {1, 4, 64}) {
          const std::string name = std::string("matmul_q8/") + std::string(F::name) + "/" +
                                   table->isa + "/" + std::to_string(tokens);
          benchmark::RegisterBenchmark(
              name.c_str(), [=](benchmark::State& state) { matmul_q8<F>(state, *table, tokens); });
        }
      }
    });
  }
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
  return 0;
}

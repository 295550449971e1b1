// Encoders of weights, which are the same code on every instruction set. With and without an
// importance.
#include <nibble/formats/list.hpp>
#include <nibble/quantise/rows.hpp>
#include <random>
#include <span>
#include <vector>

#include "harness.hpp"

namespace {

constexpr std::int64_t columns = 2048;
constexpr std::int64_t rows = 4;

template <typename F>
void encode(benchmark::State& state, bool weighted) {
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  std::vector<float> x(rows * columns), importance(weighted ? columns : 0);
  for (float& v : x) v = normal(random);
  for (float& v : importance) v = 1 + std::abs(normal(random));
  std::vector<std::byte> out(x.size() / F::block_size * sizeof(typename F::block));
  for (auto _ : state) {
    nibble::quantise_rows(nibble::format_id{F::gguf_id}, x, columns, importance, out);
    benchmark::ClobberMemory();
  }
  state.counters["Mvalues/s"] = benchmark::Counter(
      static_cast<double>(state.iterations()) * static_cast<double>(x.size()) / 1e6,
      benchmark::Counter::kIsRate);
}

const bool added = [] {
  nibble::for_each_format([&]<typename F>(F) {
    for (const bool weighted : {false, true}) {
      const std::string name = "encode/" + std::string(F::name) +
                               (weighted ? "/with importance" : "/without importance");
      benchmark::RegisterBenchmark(name.c_str(), [=](benchmark::State& state) {
        encode<F>(state, weighted);
      })->Unit(benchmark::kMicrosecond);
    }
  });
  return true;
}();

}  // namespace

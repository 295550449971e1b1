// Products of weights with int8 and float activations.
//
// Rows have 2048 columns. For few tokens the weights are 64 MiB, so that they come from memory
// again for each pass, as in a model; for many, 4 MiB. Products are cut into parts as the CPU
// backend cuts them. Each of several threads has rows of its own.
#include <cstring>
#include <nibble/formats/list.hpp>
#include <random>
#include <vector>

#include "cpu/select.hpp"
#include "device/cpu_program_memory.hpp"
#include "harness.hpp"

namespace {

using nibble::cpu::kernel_table;

constexpr std::int64_t columns = 2048;
constexpr std::size_t all_bytes = std::size_t{64} << 20;
constexpr std::int64_t few_tokens = 8;

// Random codes under scales of 1, or floats of moderate size.
template <typename F>
void fill(std::mt19937& random, typename F::block& b) {
  if constexpr (nibble::element_format<F>) {
    b = F::from(static_cast<float>(random() % 2001) / 1000 - 1);
  } else {
    std::uint8_t bytes[sizeof b];
    for (auto& byte : bytes) byte = static_cast<std::uint8_t>(random() >> 7);
    std::memcpy(&b, bytes, sizeof b);
    if constexpr (requires { b.d; }) b.d = nibble::to_half(1.0f);
    if constexpr (requires { b.m; }) b.m = nibble::to_half(1.0f);
    if constexpr (requires { b.dmin; }) b.dmin = nibble::to_half(1.0f);
    if constexpr (requires { b.e; }) b.e = 127;
  }
}

template <typename F>
constexpr std::size_t row_bytes = columns / F::block_size * sizeof(typename F::block);

// Some hundred rows of random blocks, again and again; for int8 activations as `table` packs them.
template <typename F>
std::shared_ptr<bench::buffer> make_weights(const kernel_table& table, bool q8) {
  constexpr std::int64_t rows = 512;
  std::mt19937 random(1);
  std::vector<typename F::block> some(static_cast<std::size_t>(rows * columns / F::block_size));
  for (auto& b : some) fill<F>(random, b);
  if (q8) {
    const std::vector<typename F::block> plain = some;
    table.pack[nibble::index_of<F>](plain.data(), rows, columns, some.data());
  }
  auto weights = std::make_shared<bench::buffer>(all_bytes);
  auto* const to = reinterpret_cast<unsigned char*>(weights->data());
  const std::size_t step = some.size() * sizeof some[0];
  for (std::size_t at = 0; at < weights->size(); at += step) {
    std::memcpy(to + at, some.data(), std::min(step, weights->size() - at));
  }
  return weights;
}

// Tokens in both forms.
struct activations {
  std::vector<float> x;
  std::vector<std::int8_t> q;
  std::vector<float> scale;
  std::vector<std::int16_t> sum;

  activations(const kernel_table& table, std::int64_t tokens)
      : x(static_cast<std::size_t>(tokens * columns)),
        q(x.size()),
        scale(x.size() / 32),
        sum(x.size() / 16) {
    for (std::size_t i = 0; i < x.size(); ++i) x[i] = (static_cast<float>(i % 97) - 48) / 32;
    table.quantise_q8(x.data(), static_cast<std::int64_t>(x.size()), q.data(), scale.data(),
                      sum.data());
  }
};

// Calls multiply(row, rows, token, tokens) for all parts.
template <typename Multiply>
void cut(const nibble::part_size& part, std::int64_t rows, std::int64_t tokens,
         const Multiply& multiply) {
  if (tokens == 1) return multiply(0, rows, 0, 1);
  for (std::int64_t r = 0; r < rows; r += part.rows) {
    for (std::int64_t t = 0; t < tokens; t += part.tokens) {
      multiply(r, std::min(part.rows, rows - r), t, std::min(part.tokens, tokens - t));
    }
  }
}

template <typename F>
void matmul(benchmark::State& state, const kernel_table& table, bool q8, std::int64_t tokens) {
  constexpr std::int64_t unit = 64;  // rows: whole strips on every instruction set
  const std::string layout = q8 ? "/" + std::to_string(table.strip_rows) : "";
  const auto weights = bench::shared_buffer(std::string(F::name) + layout,
                                            [&] { return make_weights<F>(table, q8); });
  const std::size_t mine = (tokens <= few_tokens ? all_bytes : all_bytes / 16) /
                           static_cast<std::size_t>(state.threads());
  const auto rows = static_cast<std::int64_t>(mine / row_bytes<F>) / unit * unit;
  const auto row_at = [&](std::int64_t r) {
    return reinterpret_cast<const unsigned char*>(weights->data()) +
           static_cast<std::size_t>(state.thread_index() * rows + r) * row_bytes<F>;
  };
  const activations a(table, tokens);
  std::vector<float> out(static_cast<std::size_t>(tokens * rows));
  const bench::buffer scratch(nibble::cpu::product_scratch_bytes);

  const bench::peak_loops& loops = bench::loops_of(table.isa);
  const double macs = static_cast<double>(rows) * columns * static_cast<double>(tokens);
  const auto part = [&](std::int64_t r, std::int64_t n_rows, std::int64_t t, std::int64_t n) {
    float* const to = out.data() + t * rows + r;
    const std::int64_t at = t * columns;
    if (q8) {
      table.matmul_q8[nibble::index_of<F>](
          {row_at(r), n_rows},
          {a.q.data() + at, a.scale.data() + at / 32, a.sum.data() + at / 16, columns}, n,
          {to, rows, false}, scratch.data());
    } else {
      table.matmul_f32[nibble::index_of<F>]({row_at(r), row_bytes<F>, n_rows, columns},
                                            a.x.data() + at, columns, n, to, rows);
    }
  };
  // codes of 5 bits may be added up in 16 bits by fours
  constexpr bool narrow = [] {
    if constexpr (nibble::block_format<F>) return F::max_code - F::min_code < 32;
    return false;
  }();
  const bench::peak_loop& integers = narrow ? loops.int8_16 : loops.int8;
  bench::measure(state, {.loops = loops, .compute = q8 ? integers : loops.fp32},
                 {.macs = macs, .bytes = static_cast<double>(rows) * row_bytes<F>},
                 [&] { cut(q8 ? nibble::q8_part : nibble::f32_part, rows, tokens, part); });
}

const bool added = [] {
  nibble::for_each_format([&]<typename F>(F) {
    for (const bool q8 : {true, false}) {
      if (q8 && nibble::element_format<F>) continue;
      for (const kernel_table* table : nibble::cpu::available_kernels()) {
        for (const std::int64_t tokens : {1, 4, 8, 64, 512}) {
          const auto name =
              bench::join(q8 ? "matmul_q8" : "matmul_f32", F::name, table->isa, tokens);
          const auto run = [=](benchmark::State& state) { matmul<F>(state, *table, q8, tokens); };
          for (const int threads : {1, 2}) {
            auto* const made = benchmark::RegisterBenchmark(name.c_str(), run);
            made->Unit(benchmark::kMicrosecond);
            if (threads > 1) made->Threads(threads);
          }
        }
      }
    }
  });
  return true;
}();

}  // namespace

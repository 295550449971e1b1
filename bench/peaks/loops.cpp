#include "peaks/loops.hpp"

#include <cstddef>

namespace bench {
namespace {

// Arrays that stay in the nearest cache, multiplied as the compiler makes it.
constexpr std::size_t count = 4096;

// The compiler must take this for used.
void keep(std::int64_t x) {
  asm volatile("" : : "r"(x));
}

// The compiler must take the pointer for another one.
template <typename T>
const T* some(const T* x) {
  asm volatile("" : "+r"(x));
  return x;
}

void products_of_bytes(std::int64_t rounds) {
  static constexpr std::int8_t a[count] = {3}, b[count] = {-5};
  for (std::int64_t round = 0; round < rounds; ++round) {
    const std::int8_t *const x = some(a), *const y = some(b);
    std::int32_t sum = 0;
    for (std::size_t i = 0; i < count; ++i) sum += x[i] * y[i];
    keep(sum);
  }
}

// The sums are independent chains for whatever vectors the compiler uses; their address is never
// taken, so that they can live in registers.
void products_of_floats(std::int64_t rounds) {
  static constexpr float a[count] = {}, b[count] = {};
  for (std::int64_t round = 0; round < rounds; ++round) {
    const float *const x = some(a), *const y = some(b);
    float sums[16] = {};
    for (std::size_t i = 0; i < count; i += 16) {
      for (std::size_t j = 0; j < 16; ++j) sums[j] += x[i + j] * y[i + j];
    }
    float sum = 0;
    for (const float s : sums) sum += s;
    keep(sum > 0);
  }
}

// Eight sums: enough independent loads in flight for the memory to be what limits.
void read_all(const void* from, std::size_t bytes) {
  const auto* const x = static_cast<const std::uint64_t*>(from);
  std::uint64_t sums[8] = {};
  for (std::size_t i = 0; i < bytes / 8; i += 8) {
    for (std::size_t j = 0; j < 8; ++j) sums[j] |= x[i + j];
  }
  std::uint64_t sum = 0;
  for (const std::uint64_t s : sums) sum |= s;
  keep(static_cast<std::int64_t>(sum));
}

void loads(std::int64_t rounds) {
  static constexpr std::uint64_t data[count / 8] = {};
  for (std::int64_t round = 0; round < rounds; ++round) read_all(some(data), count);
}

}  // namespace

const peak_loops& portable_loops() {
  static constexpr peak_loops loops = {
      "scalar",
      {"plain loop", products_of_bytes, count},
      {"plain loop", products_of_bytes, count},
      {"plain loop", products_of_floats, count},
      {"plain loop", loads, count},
      {read_all, nullptr},
  };
  return loops;
}

}  // namespace bench

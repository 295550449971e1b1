#include "bench_peaks.hpp"

#include <algorithm>
#include <barrier>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <new>
#include <thread>

#if defined(__unix__) || defined(__APPLE__)
#include <sys/mman.h>
#include <unistd.h>
#endif

namespace bench {
namespace {

constexpr int passes = 9;  // of each limit in one measurement
constexpr std::size_t huge_page = std::size_t{2} << 20;

// Runs work(thread) on all threads, `times` times in step; gives the seconds of each time.
template <typename Work>
std::vector<double> time_passes(int threads, int times, Work work) {
  using clock = std::chrono::steady_clock;
  std::vector<clock::time_point> stamps;
  stamps.reserve(static_cast<std::size_t>(times) + 1);
  std::barrier step(threads, [&]() noexcept { stamps.push_back(clock::now()); });
  {
    std::vector<std::jthread> team;
    for (int t = 0; t < threads; ++t) {
      team.emplace_back([&, t] {
        step.arrive_and_wait();
        for (int pass = 0; pass < times; ++pass) {
          work(t);
          step.arrive_and_wait();
        }
      });
    }
  }
  std::vector<double> seconds;
  for (std::size_t i = 1; i < stamps.size(); ++i) {
    seconds.push_back(std::chrono::duration<double>(stamps[i] - stamps[i - 1]).count());
  }
  return seconds;
}

// Memory that is not shared with anything: in huge pages where the system grants them, as the
// weights of a model are.
struct buffer {
  explicit buffer(std::size_t size) : bytes(size) {
    data = static_cast<std::uint64_t*>(std::aligned_alloc(huge_page, bytes));
    if (!data) throw std::bad_alloc();
#if defined(MADV_HUGEPAGE)
    // advice; whether it is taken, only the speed shows
    static_cast<void>(madvise(data, bytes, MADV_HUGEPAGE));
#endif
  }
  ~buffer() {
    std::free(data);
  }
  buffer(const buffer&) = delete;
  buffer& operator=(const buffer&) = delete;

  std::uint64_t* data;
  std::size_t bytes;
};

// The compiler must take this value for used, and memory for changed.
template <typename T>
void keep(T& x) {
  asm volatile("" : "+r"(x) : : "memory");
}

// Four times the largest cache, so that little of a pass is left for the next one.
std::size_t buffer_bytes() {
  long cache = 0;
#if defined(_SC_LEVEL3_CACHE_SIZE)
  cache = sysconf(_SC_LEVEL3_CACHE_SIZE);
#endif
  constexpr std::size_t least = std::size_t{256} << 20, most = std::size_t{2} << 30;
  return std::clamp(cache > 0 ? 4 * static_cast<std::size_t>(cache) : least, least, most);
}

// Eight sums: enough independent loads in flight for the memory to be what limits.
std::uint64_t read_all(const std::uint64_t* x, std::size_t count) {
  std::uint64_t sum[8] = {};
  for (std::size_t i = 0; i + 8 <= count; i += 8) {
    for (std::size_t k = 0; k < 8; ++k) sum[k] += x[i + k];
  }
  for (std::size_t k = 1; k < 8; ++k) sum[0] += sum[k];
  return sum[0];
}

// A plain loop over arrays that stay in the nearest cache.
constexpr std::size_t portable_round = 4096;  // products

void portable_products(std::int64_t rounds) {
  const std::vector<std::int8_t> a(portable_round, 3), b(portable_round, -5);
  for (std::int64_t round = 0; round < rounds; ++round) {
    std::int32_t sum = 0;
    const std::int8_t *x = a.data(), *y = b.data();
    keep(x);
    for (std::size_t i = 0; i < portable_round; ++i) sum += std::int32_t{x[i]} * y[i];
    keep(sum);
  }
}

#if defined(__x86_64__)

// One step of the classic product of 8-bit integers: 32 products, summed to eight 32-bit sums.
// Written as instructions, so that sums stay in registers whatever the compiler thinks, and so
// that the program runs on a machine without AVX2 as long as it does not come here.
constexpr std::size_t avx2_round = 6 * 32;
#define NIBBLE_BENCH_STEP(temporary, sum)                                              \
  "vpmaddubsw %%ymm14, %%ymm15, %%ymm" temporary                                       \
  "\n\t"                                                                               \
  "vpmaddwd %%ymm13, %%ymm" temporary ", %%ymm" temporary "\n\tvpaddd %%ymm" temporary \
  ", %%ymm" sum ", %%ymm" sum "\n\t"

void avx2_products(std::int64_t rounds) {
  asm volatile(
      "vpxor %%ymm13, %%ymm13, %%ymm13\n\t"
      "vpxor %%ymm14, %%ymm14, %%ymm14\n\t"
      "vpxor %%ymm15, %%ymm15, %%ymm15\n\t"
      "1:\n\t"  //
      NIBBLE_BENCH_STEP("6", "0") NIBBLE_BENCH_STEP("7", "1") NIBBLE_BENCH_STEP("8", "2")
      NIBBLE_BENCH_STEP("9", "3") NIBBLE_BENCH_STEP("10", "4") NIBBLE_BENCH_STEP("11", "5")
      "subq $1, %0\n\t"
      "jnz 1b\n\t"
      "vzeroupper\n\t"
      : "+r"(rounds)
      :
      : "cc", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9",
        "xmm10", "xmm11", "xmm13", "xmm14", "xmm15");
}

#undef NIBBLE_BENCH_STEP

#endif

// The best loop that this machine can run; `rounds` take 10 to 50 ms.
struct integer_loop {
  const char* instructions;
  void (*run)(std::int64_t rounds);
  std::int64_t rounds;
  std::size_t products;  // of a round
};

integer_loop choose_loop() {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx2")) {
    return {"vpmaddubsw + vpmaddwd + vpaddd", avx2_products, 2'000'000, avx2_round};
  }
#endif
  return {"plain loop", portable_products, 20'000, portable_round};
}

}  // namespace

double median(std::vector<double> x) {
  if (x.empty()) return 0;
  std::sort(x.begin(), x.end());
  return (x[(x.size() - 1) / 2] + x[x.size() / 2]) / 2;
}

void peaks::measure() {
  {
    const std::size_t each =
        (buffer_bytes() / static_cast<std::size_t>(threads_) + huge_page - 1) & -huge_page;
    const buffer memory(each * static_cast<std::size_t>(threads_));
    const std::size_t count = each / sizeof(std::uint64_t);
    const auto part = [&](int t) { return memory.data + static_cast<std::size_t>(t) * count; };
    // every thread touches its part first, which places it near that thread
    time_passes(threads_, 1, [&](int t) { std::fill_n(part(t), count, std::uint64_t{1}); });
    for (const double seconds : time_passes(threads_, passes, [&](int t) {
           std::uint64_t sum = read_all(part(t), count);
           keep(sum);
         })) {
      bandwidth_.push_back(static_cast<double>(memory.bytes) / seconds / 1e9);
    }
  }
  const integer_loop loop = choose_loop();
  const double products = static_cast<double>(threads_) * static_cast<double>(loop.rounds) *
                          static_cast<double>(loop.products);
  for (const double seconds : time_passes(threads_, passes, [&](int) { loop.run(loop.rounds); })) {
    integer_.push_back(products / seconds / 1e9);
  }
}

std::string peaks::integer_instructions() {
  return choose_loop().instructions;
}

}  // namespace bench

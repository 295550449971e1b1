#include "peaks/peaks.hpp"

#include <algorithm>
#include <barrier>
#include <chrono>
#include <cstdlib>
#include <ctime>
#include <new>
#include <thread>

#if defined(__unix__) || defined(__APPLE__)
#include <sys/mman.h>
#include <time.h>
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

// As many rounds as take 10 to 50 ms on the machines of today.
std::int64_t rounds_of(const peak_loop& loop) {
  return static_cast<std::int64_t>(1e9 / loop.amount);
}

}  // namespace

double median(std::vector<double> x) {
  if (x.empty()) return 0;
  std::sort(x.begin(), x.end());
  return (x[(x.size() - 1) / 2] + x[x.size() / 2]) / 2;
}

buffer::buffer(std::size_t size) : bytes_((size + huge_page - 1) & -huge_page) {
  data_ = static_cast<std::uint64_t*>(std::aligned_alloc(huge_page, bytes_));
  if (!data_) throw std::bad_alloc();
#if defined(MADV_HUGEPAGE)
  // advice; whether it is taken, only the speed shows
  static_cast<void>(madvise(data_, bytes_, MADV_HUGEPAGE));
#endif
}

buffer::~buffer() {
  std::free(data_);
}

std::size_t beyond_caches() {
  long cache = 0;
#if defined(_SC_LEVEL3_CACHE_SIZE)
  cache = sysconf(_SC_LEVEL3_CACHE_SIZE);
#endif
  constexpr std::size_t least = std::size_t{256} << 20, most = std::size_t{2} << 30;
  const std::size_t size = cache > 0 ? 4 * static_cast<std::size_t>(cache) : least;
  return (std::clamp(size, least, most) + huge_page - 1) & -huge_page;
}

double thread_seconds() {
#if defined(CLOCK_THREAD_CPUTIME_ID)
  timespec t{};
  if (clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t) == 0) {
    return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_nsec) * 1e-9;
  }
#endif
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

double measure_rate(const peak_loop& loop) {
  if (!loop.run) return 0;
  const std::int64_t rounds = rounds_of(loop) / 10;
  double best = 0;
  for (int pass = 0; pass < 3; ++pass) {  // the first may find the processor asleep
    const double start = thread_seconds();
    loop.run(rounds);
    const double seconds = thread_seconds() - start;
    best = std::max(best, static_cast<double>(rounds) * loop.amount / seconds / 1e9);
  }
  return best;
}

void peaks::measure() {
  {
    const std::size_t each =
        (beyond_caches() / static_cast<std::size_t>(threads_) + huge_page - 1) & -huge_page;
    const buffer memory(each * static_cast<std::size_t>(threads_));
    const std::size_t count = each / sizeof(std::uint64_t);
    const auto part = [&](int t) { return memory.data() + static_cast<std::size_t>(t) * count; };
    // every thread touches its part first, which places it near that thread
    time_passes(threads_, 1, [&](int t) { std::fill_n(part(t), count, std::uint64_t{1}); });
    for (std::size_t i = 0; i < bandwidth_.size(); ++i) {
      const auto read = loops_.read[i];
      if (!read) continue;
      for (const double seconds :
           time_passes(threads_, passes, [&](int t) { read(part(t), each); })) {
        bandwidth_[i].push_back(static_cast<double>(memory.size()) / seconds / 1e9);
      }
    }
  }
  const auto add = [](std::vector<double>& to, const std::vector<double>& more) {
    to.insert(to.end(), more.begin(), more.end());
  };
  add(integer_, rates_of(loops_.int8));
  add(narrow_, rates_of(loops_.int8_16));
}

std::vector<double> peaks::rates_of(const peak_loop& loop) const {
  const std::int64_t rounds = rounds_of(loop);
  const double products = static_cast<double>(threads_) * static_cast<double>(rounds) * loop.amount;
  std::vector<double> rates;
  for (const double seconds : time_passes(threads_, passes, [&](int) { loop.run(rounds); })) {
    rates.push_back(products / seconds / 1e9);
  }
  return rates;
}

}  // namespace bench

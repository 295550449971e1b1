#include "device/speed_bench.hpp"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <exception>
#include <mutex>
#include <nibble/base/half.hpp>
#include <nibble/formats/list.hpp>
#include <system_error>
#include <thread>
#include <utility>

namespace nibble::inline NIBBLE_ABI {
namespace {

// Runs of a program that are counted at least, however long they take.
constexpr int fewest_runs = 3;
// Runs that differ less were not interrupted.
constexpr double quiet = 1.1;
// What a clock may show no time for, in seconds.
constexpr double shortest_run = 1e-9;
// What one thread fills at a time, about.
constexpr std::size_t fill_bytes = std::size_t{1} << 20;
constexpr std::uint16_t small_scale = 0x1400;  // 2^-10 as a half

template <typename F>
void fill_blocks(std::span<std::byte> bytes) {
  using block = typename F::block;
  std::uint64_t state = 1;
  for (std::size_t at = 0; at + sizeof(block) <= bytes.size(); at += sizeof(block)) {
    block b;
    for (std::size_t i = 0; i < sizeof b; ++i) {
      state = state * 6364136223846793005u + 1442695040888963407u;
      reinterpret_cast<std::byte*>(&b)[i] = static_cast<std::byte>(state >> 56);
    }
    if constexpr (element_format<F>) {
      b = F::from((static_cast<float>(state >> 40) / 8388608.0f - 1) / 64);
    }
    if constexpr (requires { b.d.bits; }) b.d.bits = small_scale;
    if constexpr (requires { b.m; }) b.m.bits = small_scale;
    if constexpr (requires { b.dmin; }) b.dmin.bits = small_scale;
    if constexpr (requires { b.e; }) b.e = 118;  // 2^-9
    std::memcpy(bytes.data() + at, &b, sizeof b);
  }
}

// Runs work(i) for i below n on the threads of this machine. The first failure is thrown.
template <typename Work>
void in_parallel(std::size_t n, const Work& work) {
  std::atomic<std::size_t> next = 0;
  std::exception_ptr failure;
  std::mutex guard;
  const auto take = [&] {
    try {
      for (std::size_t i = next++; i < n; i = next++) work(i);
    } catch (...) {
      const std::lock_guard lock(guard);
      failure = std::current_exception();
      next = n;
    }
  };
  {
    std::vector<std::jthread> team;
    const std::size_t threads = std::min<std::size_t>(std::thread::hardware_concurrency(), 8);
    try {
      while (team.size() + 1 < std::min(threads, n)) team.emplace_back(take);
    } catch (const std::system_error&) {
      // no more threads here: fewer do the same
    }
    take();
  }
  if (failure) std::rethrow_exception(failure);
}

}  // namespace

void fill_with_weights(format_id format, std::span<std::byte> blocks) {
  with_format(format, [&]<typename F>(F) { fill_blocks<F>(blocks); });
}

const weight* speed_weights::add(format_id format, std::int64_t columns, std::int64_t rows) {
  weight& w = weights_.emplace_back();
  w.format = format;
  w.shape.extent = {static_cast<std::uint64_t>(columns), static_cast<std::uint64_t>(rows), 1, 1};
  return &w;
}

void speed_weights::import_into(backend& to) {
  struct part {
    const weight* to;
    row_range rows;
    std::size_t from;  // which of the sources
  };
  struct source {
    format_id format;
    std::size_t row_bytes;
    std::vector<std::byte> bytes;
  };
  std::size_t bytes = 0;
  for (const weight& w : weights_) bytes += to.weight_bytes({w.format, w.shape, nullptr});
  to.reserve_weights(bytes);
  std::vector<source> sources;
  std::vector<part> parts;
  for (weight& w : weights_) {
    w = to.place_weight({w.format, w.shape, nullptr});
    const std::size_t row = row_bytes(w.format, w.shape.columns());
    const std::int64_t count =
        std::max<std::int64_t>(static_cast<std::int64_t>(fill_bytes / row) / part_rows, 1) *
        part_rows;
    auto found = std::find_if(sources.begin(), sources.end(), [&](const source& s) {
      return s.format == w.format && s.row_bytes == row;
    });
    if (found == sources.end()) {
      source made{w.format, row, std::vector<std::byte>(row * static_cast<std::size_t>(count))};
      fill_with_weights(w.format, made.bytes);
      found = sources.insert(sources.end(), std::move(made));
    }
    const auto which = static_cast<std::size_t>(found - sources.begin());
    const auto rows = static_cast<std::int64_t>(w.shape.rows());
    for (std::int64_t first = 0; first < rows; first += count) {
      parts.push_back({&w, {first, std::min(count, rows - first)}, which});
    }
  }
  in_parallel(parts.size(), [&](std::size_t i) {
    to.fill_weight(*parts[i].to, parts[i].rows, sources[parts[i].from].bytes.data());
  });
}

speed_cache_pages::speed_cache_pages(backend& on, const kv_layout& layout, std::int32_t tokens) {
  const auto n = static_cast<std::int32_t>(pages_for(tokens));
  cache_ = on.make_cache(layout, std::vector<std::int32_t>(group_layers(layout).size(), n));
  for (const kv_group& group : cache_->groups()) {
    // one byte makes small numbers of every type, and scales that are no different
    const std::vector<std::byte> page(group.page_bytes(), std::byte{0x2c});
    const std::size_t which = table_.groups.size();
    auto& pages = table_.groups.emplace_back();
    pages.tail_first = n;
    for (page_id p = 0; p < n; ++p) {
      pages.head.push_back(p);
      cache_->write_page(which, p, kv_page_tokens, page.data());
    }
  }
}

timed_program::timed_program(backend& on, recording steps, std::int32_t tokens,
                             const speed_clock& now)
    : timed_program(on, std::move(steps), batch_chunk{nullptr, nullptr, 0, tokens, 0}, 0, now) {}

timed_program::timed_program(backend& on, recording steps, batch_chunk chunk, std::int32_t context,
                             const speed_clock& now)
    : program_(on.make_program(
          std::move(steps), {.max_tokens = chunk.count, .max_outputs = 1, .max_context = context})),
      tokens_(static_cast<std::size_t>(chunk.count)),
      chunk_(chunk),
      output_(chunk.count - 1),
      now_(now) {
  std::fill(program_->input().begin(), program_->input().end(), 1.0f);
}

double timed_program::run() {
  const double start = now_();
  program_->submit({tokens_, {&chunk_, 1}, {&output_, 1}});
  program_->wait();
  return std::max(now_() - start, shortest_run);
}

run_times time_in_turn(std::span<timed_program> programs, double seconds, int most,
                       const speed_clock& now) {
  std::vector<std::vector<double>> times(programs.size());
  const double start = now();
  for (timed_program& p : programs) p.run();
  for (int round = 0; round < most; ++round) {
    if (round >= fewest_runs && now() - start > seconds) break;
    for (std::size_t i = 0; i < programs.size(); ++i) times[i].push_back(programs[i].run());
  }
  run_times halves, quarters;
  double half = 0, quarter = 0;
  for (auto& runs : times) {
    std::sort(runs.begin(), runs.end());
    quarters.usual.push_back(runs[runs.size() / 4]);
    halves.usual.push_back(runs[runs.size() / 2]);
    quarter += quarters.usual.back();
    half += halves.usual.back();
  }
  halves.noise = quarters.noise = half / quarter;
  return halves.noise < quiet ? halves : quarters;
}

double time_alone(timed_program& one, double seconds, int most, const speed_clock& now) {
  return time_in_turn({&one, 1}, seconds, most, now).usual[0];
}

}  // namespace nibble::inline NIBBLE_ABI

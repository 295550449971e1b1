#include "emulated/block_runner.hpp"

#include <sys/mman.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <new>

#if defined(NIBBLE_ASAN)
#include <sanitizer/asan_interface.h>
#endif

namespace nibble::inline v0::simt {

namespace {

// Frames are larger with sanitizers. Memory is taken when a stack is used.
#if defined(NIBBLE_ASAN)
constexpr std::size_t stack_bytes = 256 * 1024;
#else
constexpr std::size_t stack_bytes = 64 * 1024;
#endif

// A NaN as float and as half, and no likely integer.
constexpr int garbage = 0xff;

constexpr std::size_t shared_alignment = 128;

bool same(const call_site& a, const call_site& b) {
  return a.line == b.line && (a.file == b.file || std::strcmp(a.file, b.file) == 0);
}

block_runner& runner() {
  return *static_cast<block_runner*>(running);
}

void poison([[maybe_unused]] const void* memory, [[maybe_unused]] std::size_t bytes) {
#if defined(NIBBLE_ASAN)
  __asan_poison_memory_region(memory, bytes);
#endif
}
void unpoison([[maybe_unused]] const void* memory, [[maybe_unused]] std::size_t bytes) {
#if defined(NIBBLE_ASAN)
  __asan_unpoison_memory_region(memory, bytes);
#endif
}

}  // namespace

block_runner::block_runner(const machine_options& options)
    : options_(options),
      shared_memory_(std::make_unique<std::byte[]>(max_shared + shared_alignment)),
      state_(max_threads),
      warps_(static_cast<std::size_t>(max_threads / options.width)),
      ready_(max_threads) {
  void* const mapped = ::mmap(nullptr, stack_bytes * max_threads, PROT_READ | PROT_WRITE,
                              MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (mapped == MAP_FAILED) throw std::bad_alloc();
  stacks_ = static_cast<std::byte*>(mapped);
  width = options.width;
  const auto address = reinterpret_cast<std::uintptr_t>(shared_memory_.get());
  shared = shared_memory_.get() + (shared_alignment - address % shared_alignment);
}

block_runner::~block_runner() {
  unpoison(shared, max_shared);
  unpoison(stacks_, stack_bytes * max_threads);
  ::munmap(stacks_, stack_bytes * max_threads);
}

std::byte* block_runner::stack(int of) const {
  return stacks_ + static_cast<std::size_t>(of) * stack_bytes;
}

std::uint32_t block_runner::random() {
  random_state_ ^= random_state_ << 13;
  random_state_ ^= random_state_ >> 17;
  random_state_ ^= random_state_ << 5;
  return random_state_;
}

// Threads [first, first + count) as they are to go on.
void block_runner::make_order(int first, int count, std::uint16_t* order) {
  for (int i = 0; i < count; ++i) {
    const bool down = options_.order == lane_order::descending;
    order[i] = static_cast<std::uint16_t>(first + (down ? count - 1 - i : i));
  }
  if (options_.order != lane_order::random) return;
  for (int i = count - 1; i > 0; --i) {
    std::swap(order[i], order[random() % static_cast<std::uint32_t>(i + 1)]);
  }
}

void block_runner::wake(int first, int count) {
  std::uint16_t order[max_threads];
  make_order(first, count, order);
  for (int i = 0; i < count; ++i) {
    state_[order[i]].now = doing::runs;
    ready_[ready_end_++ % max_threads] = order[i];
  }
}

// Goes on with the thread that has been ready for longest; returns when it is this one's turn.
void block_runner::next() {
  if (ready_first_ == ready_end_) fail_stuck();
  const int from = thread;
  thread = ready_[ready_first_++ % max_threads];
  if (thread == from) return;
  fiber::switch_to(state_[static_cast<std::size_t>(from)].place,
                   state_[static_cast<std::size_t>(thread)].place,
                   state_[static_cast<std::size_t>(from)].now == doing::ended);
}

NIBBLE_NO_ASAN void block_runner::thread_entry() {
  fiber::entered();
  block_runner& self = runner();
  (*self.thread_code_)();
  self.end_thread();
}

void block_runner::end_thread() {
  thread_state& me = state_[static_cast<std::size_t>(thread)];
  if (!me.place.intact()) fail("a thread needs more than %zu bytes of stack", stack_bytes);
  me.now = doing::ended;
  if (++ended_ < threads) next();
  fiber::switch_to(me.place, host_, true);
  __builtin_unreachable();
}

void block_runner::abandon() {
  abandoned_ = true;
  fiber::switch_to(state_[static_cast<std::size_t>(thread)].place, host_, true);
  __builtin_unreachable();
}

// Nobody can go on, and not all have ended.
void block_runner::fail_stuck() {
  int in_block = 0, in_warp = 0;
  call_site block_site = {"", 0}, warp_site = {"", 0};
  for (int i = 0; i < threads; ++i) {
    const thread_state& t = state_[static_cast<std::size_t>(i)];
    if (t.now == doing::waits_for_block) ++in_block, block_site = t.site;
    if (t.now == doing::waits_for_warp) ++in_warp, warp_site = t.site;
  }
  char of_block[120] = "", of_warp[120] = "";
  if (in_block > 0) {
    std::snprintf(of_block, sizeof of_block, ", %d wait at sync_block() (%.70s:%d)", in_block,
                  block_site.name(), block_site.line);
  }
  if (in_warp > 0) {
    std::snprintf(of_warp, sizeof of_warp, ", %d wait for other lanes (%.70s:%d)", in_warp,
                  warp_site.name(), warp_site.line);
  }
  fail("threads wait for others that never come: %d have ended%s%s", ended_, of_block, of_warp);
}

void block_runner::reach_barrier(call_site site) {
  if (at_barrier_++ == 0) {
    barrier_site_ = site;
  } else if (!same(barrier_site_, site)) {
    fail("threads wait at different barriers, %.80s:%d and %.80s:%d", barrier_site_.name(),
         barrier_site_.line, site.name(), site.line);
  }
  thread_state& me = state_[static_cast<std::size_t>(thread)];
  me.now = doing::waits_for_block;
  me.site = site;
  if (at_barrier_ == threads) {
    at_barrier_ = 0;
    wake(0, threads);
  }
  next();
}

void block_runner::reach_collective(const char* name, operation what, const void* in, void* out,
                                    call_site site) {
  const int lane = thread % width;
  warp_state& warp = warps_[static_cast<std::size_t>(thread / width)];
  if (warp.arrived++ == 0) {
    warp.name = name;
    warp.run = what;
    warp.site = site;
  } else if (warp.run != what || !same(warp.site, site)) {
    fail("lanes of a warp are at different calls, %s (%.80s:%d) and %s (%.80s:%d)", warp.name,
         warp.site.name(), warp.site.line, name, site.name(), site.line);
  }
  warp.in[lane] = in;
  warp.out[lane] = out;
  thread_state& me = state_[static_cast<std::size_t>(thread)];
  me.now = doing::waits_for_warp;
  me.site = site;
  if (warp.arrived == width) {
    warp.arrived = 0;
    what({width, warp.in, warp.out});
    wake(thread - lane, width);
  }
  next();
}

bool block_runner::is_shared(const void* address, std::size_t bytes) const {
  const auto* const at = static_cast<const std::byte*>(address);
  return at >= shared && at + bytes <= shared + shared_bytes;
}

bool block_runner::may_access(const void* address, std::size_t bytes) {
  const auto* const at = static_cast<const std::byte*>(address);
  const auto in = [&](const memory_range& r) { return at >= r.begin && at + bytes <= r.end; };
  if (in(last_range_) || is_shared(address, bytes)) return true;
  if (in({stack(thread), stack(thread + 1)})) return true;
  const auto after = std::upper_bound(
      memory_.begin(), memory_.end(), at,
      [](const std::byte* address_, const memory_range& r) { return address_ < r.begin; });
  if (after == memory_.begin() || !in(*std::prev(after))) return false;
  last_range_ = *std::prev(after);
  return true;
}

// An exception would have nowhere to go from a fiber.
template <typename T>
void block_runner::keep(std::vector<T>& all, T one) {
  bool kept = true;
  try {
    all.push_back(one);
  } catch (const std::bad_alloc&) {
    kept = false;
  }
  if (!kept) fail("the host has no memory left");
}

void block_runner::copy_async(void* to, const void* from) {
  std::memset(to, garbage, 16);
  thread_state& me = state_[static_cast<std::size_t>(thread)];
  keep(me.copies, {to, from});
}

void block_runner::commit_async() {
  thread_state& me = state_[static_cast<std::size_t>(thread)];
  keep(me.commits, me.copies.size());
}

void block_runner::wait_async(int open) {
  thread_state& me = state_[static_cast<std::size_t>(thread)];
  const auto left = static_cast<std::size_t>(open);
  if (me.commits.size() <= left) return;
  const std::size_t closed = me.commits.size() - left;
  const std::size_t n = me.commits[closed - 1];
  for (std::size_t i = 0; i < n; ++i) std::memcpy(me.copies[i].to, me.copies[i].from, 16);
  me.copies.erase(me.copies.begin(), me.copies.begin() + static_cast<std::ptrdiff_t>(n));
  me.commits.erase(me.commits.begin(), me.commits.begin() + static_cast<std::ptrdiff_t>(closed));
  for (std::size_t& commit : me.commits) commit -= n;
}

void block_runner::start(const launch_request& request, std::uint64_t index) {
  std::copy(request.grid, request.grid + 3, grid);
  block[0] = static_cast<std::uint32_t>(index % grid[0]);
  block[1] = static_cast<std::uint32_t>(index / grid[0] % grid[1]);
  block[2] = static_cast<std::uint32_t>(index / grid[0] / grid[1]);
  threads = request.threads;
  thread_code_ = &request.thread;
  random_state_ = (options_.seed * 2654435761u + static_cast<std::uint32_t>(index)) | 1u;

  shared_bytes = request.shared;
  unpoison(shared, max_shared);
  std::memset(shared, garbage, shared_bytes);
  poison(shared + shared_bytes, max_shared - shared_bytes);
  // the frames of threads that did not end were never left
  if (abandoned_) unpoison(stacks_, stack_bytes * max_threads);
  abandoned_ = false;

  at_barrier_ = ended_ = 0;
  ready_first_ = ready_end_ = 0;
  for (warp_state& warp : warps_) warp.arrived = 0;
  for (int i = 0; i < threads; ++i) {
    thread_state& t = state_[static_cast<std::size_t>(i)];
    t.place.prepare(stack(i), stack_bytes, thread_entry);
    t.copies.clear();
    t.commits.clear();
  }
  wake(0, threads);
}

bool block_runner::run(const launch_request& request, std::span<const memory_range> memory,
                       std::uint64_t index) {
  memory_ = memory;
  last_range_ = {};
  start(request, index);
  running_block* const outer = running;
  running = this;
  thread = ready_[ready_first_++];
  fiber::switch_to(host_, state_[static_cast<std::size_t>(thread)].place);
  running = outer;
  return !abandoned_;
}

}  // namespace nibble::inline v0::simt

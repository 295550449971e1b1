#include "emulated/simt.hpp"

#include <algorithm>
#include <atomic>
#include <cstdarg>
#include <cstdio>
#include <cstring>
#include <mutex>
#include <string_view>
#include <thread>

#include "emulated/block_runner.hpp"

namespace nibble::inline v0::simt {

constinit thread_local running_block* running = nullptr;

namespace {

block_runner& runner() {
  return *static_cast<block_runner*>(running);
}

bool aligned(const void* address) {
  return reinterpret_cast<std::uintptr_t>(address) % 16 == 0;
}

// "k<4>" of "... [with auto kernel = k<4>; Args = ...]" (g++), "... [kernel = &k, Args = ...]"
std::string kernel_name(std::string_view function) {
  constexpr std::string_view before = "kernel = ";
  const std::size_t at = function.find(before);
  if (at == std::string_view::npos) return std::string(function);
  function.remove_prefix(at + before.size());
  for (const std::string_view after : {"; Args =", ", Args ="}) {
    function = function.substr(0, function.find(after));
  }
  constexpr std::size_t longest = 160;
  return std::string(function.substr(0, longest));
}

}  // namespace

const char* call_site::name() const {
  const char* const slash = std::strrchr(file, '/');
  return slash == nullptr ? file : slash + 1;
}

void sync_block(call_site site) {
  runner().reach_barrier(site);
}

void collective(const char* name, operation run, const void* in, void* out, call_site site) {
  runner().reach_collective(name, run, in, out, site);
}

void check_access(const char* name, const void* address, call_site site) {
  if (!aligned(address)) {
    fail("%s of an address that is not a multiple of 16 (%.80s:%d)", name, site.name(), site.line);
  }
  if (!runner().may_access(address, 16)) {
    fail("%s outside of the device's memory (%.80s:%d)", name, site.name(), site.line);
  }
}

void copy_async(void* to, const void* from, call_site site) {
  check_access("copy16_async", from, site);
  if (!aligned(to)) {
    fail("copy16_async to an address that is not a multiple of 16 (%.80s:%d)", site.name(),
         site.line);
  }
  if (!runner().is_shared(to, 16)) {
    fail("copy16_async to what is not shared memory of the block (%.80s:%d)", site.name(),
         site.line);
  }
  runner().copy_async(to, from);
}

void commit_async() {
  runner().commit_async();
}

void wait_async(int open) {
  runner().wait_async(open);
}

// No object that owns memory may be alive here: the frames of the fibers are never left.
void fail(const char* format, ...) {
  block_runner& block = runner();
  char* const text = block.text();
  std::va_list arguments;
  va_start(arguments, format);
  const int n = std::vsnprintf(text, block_runner::text_bytes, format, arguments);
  va_end(arguments);
  const auto used = std::min(static_cast<std::size_t>(n < 0 ? 0 : n), block_runner::text_bytes - 1);
  std::snprintf(text + used, block_runner::text_bytes - used,
                "; thread %d of %d, block (%u, %u, %u)", block.thread, block.threads,
                block.block[0], block.block[1], block.block[2]);
  block.abandon();
}

machine::machine(const machine_options& options) : options_(options) {}

machine::~machine() = default;

std::string machine::run(const launch_request& request, std::span<const memory_range> memory) {
  const std::uint64_t blocks = std::uint64_t{request.grid[0]} * request.grid[1] * request.grid[2];
  const auto wanted = static_cast<std::uint64_t>(options_.os_threads);
  const auto workers = static_cast<std::size_t>(wanted < blocks ? wanted : blocks);
  while (runners_.size() < workers) runners_.push_back(std::make_unique<block_runner>(options_));

  std::atomic<std::uint64_t> next{0};
  std::mutex first_fault;
  std::string fault;
  const auto work = [&](block_runner& on) {
    for (std::uint64_t i = next++; i < blocks; i = next++) {
      if (on.run(request, memory, i)) continue;
      next = blocks;
      const std::lock_guard lock(first_fault);
      if (fault.empty()) fault = kernel_name(request.name) + ": " + on.fault();
    }
  };
  {
    std::vector<std::jthread> others;
    for (std::size_t i = 1; i < workers; ++i) others.emplace_back(work, std::ref(*runners_[i]));
    work(*runners_[0]);
  }
  return fault;
}

}  // namespace nibble::inline v0::simt

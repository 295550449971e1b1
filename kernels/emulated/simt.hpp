// The machine of the emulated device: runs kernels on the CPU.
//
// The threads of a block are fibers on one OS thread. Each runs up to its next barrier or warp
// collective, where the next one goes on; so a kernel that lacks a barrier computes with what was
// there before, in at least one order of threads. Mistakes that a GPU would answer with a hang or
// with wrong numbers are faults here: they end the launch, and are told with the place in the
// source. Accesses by plain pointers are left to AddressSanitizer.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace nibble::inline v0::simt {

// ---- what device code calls, from the fibers of a launch ----

// Where in the source a call stands.
struct call_site {
  const char* file;
  int line;
  static constexpr call_site here(const char* file = __builtin_FILE(),
                                  int line = __builtin_LINE()) {
    return {file, line};
  }
  const char* name() const;  // the file's, without its folders
};

// The block that this OS thread is running.
struct running_block {
  std::uint32_t block[3], grid[3];
  int threads = 0;
  int thread = 0;  // whose turn it is
  int width = 0;   // lanes of a warp
  std::byte* shared = nullptr;
  std::size_t shared_bytes = 0;
};
extern constinit thread_local running_block* running;

// All lanes of a warp bring an operand and get a result.
struct lanes {
  int count;
  const void* const* in;
  void* const* out;
};
using operation = void (*)(const lanes&);

// Every thread of the block waits for all others.
void sync_block(call_site site);
// Every lane of the warp waits for all others; the last one runs the operation. `name` is what
// faults call it.
void collective(const char* name, operation run, const void* in, void* out, call_site site);

// 16 bytes of any of the device's memory, or of the thread's own.
void check_access(const char* name, const void* address, call_site site);
// `to` in shared memory holds garbage at once, and what was to be copied after wait_async().
void copy_async(void* to, const void* from, call_site site);
void commit_async();
void wait_async(int open);

// Ends the launch; printf's format.
[[noreturn, gnu::format(printf, 1, 2)]] void fail(const char* format, ...);

// ---- what launches ----

struct launch_request {
  std::uint32_t grid[3];
  int threads;
  std::size_t shared;
  std::function<void()> thread;  // what each thread runs
  const char* name;              // in which the compiler names the kernel
};

// What launch_target::stream of the emulated device points to.
class launch_queue {
 public:
  virtual void launch(launch_request request) = 0;

 protected:
  ~launch_queue() = default;
};

// ---- the machine ----

// In which order threads go on after a barrier, and lanes after a collective.
enum class lane_order : std::int32_t { ascending, descending, random };

struct machine_options {
  int width = 32;
  lane_order order = lane_order::ascending;
  std::uint32_t seed = 1;
  int os_threads = 1;  // that blocks are spread over
};

inline constexpr int max_threads = 1024;

struct memory_range {
  const std::byte* begin;
  const std::byte* end;
};

class block_runner;

class machine {
 public:
  explicit machine(const machine_options& options);
  ~machine();

  // Runs all blocks. `memory`: what may be accessed, by rising address. Returns what went wrong;
  // empty if nothing did.
  std::string run(const launch_request& request, std::span<const memory_range> memory);

 private:
  machine_options options_;
  std::vector<std::unique_ptr<block_runner>> runners_;  // one for each OS thread
};

}  // namespace nibble::inline v0::simt

// What of this machine the process may use: cores, memory. Files are read below a root that tests
// can replace.
#pragma once

#include <cstdint>
#include <filesystem>
#include <nibble/base/config.hpp>
#include <optional>
#include <string>
#include <vector>

namespace nibble::inline NIBBLE_ABI {

// What the control groups (version 1 or 2) of this process and their parents allow.
struct cgroup_limits {
  std::optional<double> cpus;
  std::optional<std::uint64_t> memory_bytes, memory_used;  // used: without cached files
};
cgroup_limits read_cgroup_limits(const std::filesystem::path& root = "/");

struct memory_state {
  std::uint64_t total = 0, free = 0;
};
// /proc/meminfo, capped by the control groups and by the process's own limits (ulimit -v, -d).
memory_state read_memory(const std::filesystem::path& root = "/");

// CPUs that this thread may run on.
std::vector<int> allowed_cpus();
// One CPU of each physical core among `cpus`, in order: hyper-threads of one core count once.
std::vector<int> physical_cores(const std::vector<int>& cpus,
                                const std::filesystem::path& root = "/");

// What decides the number of threads, strongest first.
struct thread_sources {
  std::int32_t option = 0;                  // 0: not given
  std::optional<std::string> nibble_value;  // NIBBLE_NUM_THREADS
  std::optional<std::string> omp_value;     // OMP_NUM_THREADS, may be a list: the first counts
  std::int32_t cores = 1;                   // physical cores in the affinity mask
  std::optional<double> quota;              // CPUs, from the control groups
};
thread_sources read_thread_sources(std::int32_t option);

inline constexpr std::int32_t max_threads = 1024;

// Throws error (invalid_argument) for an option or NIBBLE_NUM_THREADS outside 1 .. max_threads. A
// senseless OMP_NUM_THREADS is another library's affair and counts as not given.
std::int32_t resolve_threads(const thread_sources& from);

}  // namespace nibble::inline NIBBLE_ABI

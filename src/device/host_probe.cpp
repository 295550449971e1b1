#include "device/host_probe.hpp"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <nibble/base/concat.hpp>
#include <nibble/base/error.hpp>
#include <set>
#include <string_view>
#include <thread>

#include "base/small_file.hpp"

#if defined(__linux__)
#include <sched.h>
#include <sys/resource.h>
#endif

namespace nibble::inline NIBBLE_ABI {
namespace {

namespace fs = std::filesystem;

// Calls f(line) for the lines of a text.
template <typename F>
void each_line(std::string_view text, F f) {
  while (!text.empty()) {
    const std::size_t end = std::min(text.find('\n'), text.size());
    f(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
}

// The next word of a line, which loses it; empty at the end.
std::string_view next_word(std::string_view& line) {
  constexpr std::string_view space = " \t";
  line.remove_prefix(std::min(line.find_first_not_of(space), line.size()));
  const std::string_view word = line.substr(0, line.find_first_of(space));
  line.remove_prefix(word.size());
  return word;
}

std::optional<std::string> read_line(const fs::path& path) {
  std::string text = read_small_file(path);
  if (text.empty()) return std::nullopt;
  text.resize(std::min(text.find('\n'), text.size()));
  return text;
}

template <typename Number>
std::optional<Number> parse(std::string_view text) {
  while (!text.empty() && text.front() == ' ') text.remove_prefix(1);
  while (!text.empty() && text.back() == ' ') text.remove_suffix(1);
  Number value{};
  const auto [end, fault] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (fault != std::errc{} || end != text.data() + text.size()) return std::nullopt;
  return value;
}

template <typename Number>
std::optional<Number> read_number(const fs::path& path) {
  const auto line = read_line(path);
  return line ? parse<Number>(*line) : std::nullopt;
}

template <typename T>
void take_smaller(std::optional<T>& least, std::optional<T> other) {
  if (other && (!least || *other < *least)) least = other;
}

// The folders of a control group and its parents up to the controller's mount. Inside a container
// the path may name a group that is not visible; its parents still count.
std::vector<fs::path> with_parents(const fs::path& mount, std::string_view group) {
  std::vector<fs::path> out;
  fs::path at = fs::path(group).relative_path();
  while (!at.empty()) {
    out.push_back(mount / at);
    at = at.parent_path();
  }
  out.push_back(mount);
  return out;
}

std::optional<double> ratio(std::optional<double> quota, std::optional<double> period) {
  if (!quota || !period || *quota <= 0 || *period <= 0) return std::nullopt;
  return *quota / *period;
}

// cgroup v2: "max 100000" or "150000 100000".
std::optional<double> read_cpu_max(const fs::path& folder) {
  const auto line = read_line(folder / "cpu.max");
  if (!line) return std::nullopt;
  std::string_view words = *line;
  const auto q = parse<std::int64_t>(next_word(words)), p = parse<std::int64_t>(next_word(words));
  if (!q || !p) return std::nullopt;
  return ratio(static_cast<double>(*q), static_cast<double>(*p));
}

std::optional<double> read_cfs_quota(const fs::path& folder) {
  const auto quota = read_number<std::int64_t>(folder / "cpu.cfs_quota_us");
  const auto period = read_number<std::int64_t>(folder / "cpu.cfs_period_us");
  if (!quota || !period) return std::nullopt;
  return ratio(static_cast<double>(*quota), static_cast<double>(*period));
}

// A line of numbers by name, "inactive_file 4096", where it has this name; 0 if there is none.
std::uint64_t read_entry(const fs::path& path, std::string_view wanted) {
  std::uint64_t found = 0;
  each_line(read_small_file(path), [&](std::string_view line) {
    if (next_word(line) == wanted) found = parse<std::uint64_t>(next_word(line)).value_or(0);
  });
  return found;
}

// Where a controller says how much a group may have, how much it has, and how much of that is
// cached files: those make room when memory is asked for.
struct memory_files {
  const char *limit, *used, *inactive_cache, *active_cache;
};
constexpr memory_files memory_v1 = {"memory.limit_in_bytes", "memory.usage_in_bytes",
                                    "total_inactive_file", "total_active_file"};
constexpr memory_files memory_v2 = {"memory.max", "memory.current", "inactive_file", "active_file"};

// The group with the least room decides what can still be had.
void take_memory(cgroup_limits& limits, const fs::path& folder, const memory_files& files) {
  const auto limit = read_number<std::uint64_t>(folder / files.limit);
  if (!limit || (limits.memory_bytes && *limit >= *limits.memory_bytes)) return;
  const fs::path statistics = folder / "memory.stat";
  const std::uint64_t used = read_number<std::uint64_t>(folder / files.used).value_or(0);
  const std::uint64_t cached =
      read_entry(statistics, files.inactive_cache) + read_entry(statistics, files.active_cache);
  limits.memory_bytes = limit;
  limits.memory_used = used - std::min(used, cached);
}

bool lists(std::string_view controllers, std::string_view name) {
  while (!controllers.empty()) {
    const std::size_t end = std::min(controllers.find(','), controllers.size());
    if (controllers.substr(0, end) == name) return true;
    controllers.remove_prefix(std::min(end + 1, controllers.size()));
  }
  return false;
}

}  // namespace

cgroup_limits read_cgroup_limits(const fs::path& root) {
  cgroup_limits limits;
  const fs::path mounts = root / "sys/fs/cgroup";
  // each line: hierarchy:controllers:path; version 2 has no controllers
  each_line(read_small_file(root / "proc/self/cgroup"), [&](std::string_view line) {
    const std::size_t first = line.find(':'), second = line.find(':', first + 1);
    if (first == line.npos || second == line.npos) return;
    const std::string_view controllers = line.substr(first + 1, second - first - 1);
    const std::string_view group = line.substr(second + 1);
    if (controllers.empty()) {
      for (const fs::path& folder : with_parents(mounts, group)) {
        take_smaller(limits.cpus, read_cpu_max(folder));
        take_memory(limits, folder, memory_v2);
      }
    } else if (lists(controllers, "cpu")) {
      for (const fs::path& folder : with_parents(mounts / "cpu", group)) {
        take_smaller(limits.cpus, read_cfs_quota(folder));
      }
    } else if (lists(controllers, "memory")) {
      for (const fs::path& folder : with_parents(mounts / "memory", group)) {
        take_memory(limits, folder, memory_v1);
      }
    }
  });
  return limits;
}

namespace {

#if defined(__linux__)
// What the process may have by a limit of its own, of which it has `used`.
void cap(memory_state& memory, decltype(RLIMIT_AS) resource, std::uint64_t used) {
  struct rlimit limit {};
  if (::getrlimit(resource, &limit) != 0) return;
  if (limit.rlim_cur == RLIM_INFINITY) return;
  const auto bytes = static_cast<std::uint64_t>(limit.rlim_cur);
  memory.total = std::min(memory.total, bytes);
  memory.free = std::min(memory.free, bytes - std::min(used, bytes));
}
#endif

// "ulimit -v" and "ulimit -d".
void cap_by_process([[maybe_unused]] memory_state& memory, [[maybe_unused]] const fs::path& root) {
#if defined(__linux__)
  each_line(read_small_file(root / "proc/self/status"), [&](std::string_view line) {
    const std::string_view name = next_word(line);
    const auto kib = parse<std::uint64_t>(next_word(line));
    if (name == "VmSize:" && kib) cap(memory, RLIMIT_AS, *kib * 1024);
    if (name == "VmData:" && kib) cap(memory, RLIMIT_DATA, *kib * 1024);
  });
#endif
}

}  // namespace

memory_state read_memory(const fs::path& root) {
  memory_state memory;
  each_line(read_small_file(root / "proc/meminfo"), [&](std::string_view line) {
    const std::string_view name = next_word(line);
    const auto bytes = parse<std::uint64_t>(next_word(line)).value_or(0) * 1024;
    if (name == "MemTotal:") memory.total = bytes;
    if (name == "MemAvailable:") memory.free = bytes;
  });
  const cgroup_limits limits = read_cgroup_limits(root);
  if (limits.memory_bytes) {
    const std::uint64_t used = std::min(limits.memory_used.value_or(0), *limits.memory_bytes);
    memory.total = std::min(memory.total, *limits.memory_bytes);
    memory.free = std::min(memory.free, *limits.memory_bytes - used);
  }
  cap_by_process(memory, root);
  return memory;
}

std::vector<int> allowed_cpus() {
  std::vector<int> cpus;
#if defined(__linux__)
  cpu_set_t set;
  CPU_ZERO(&set);
  if (::sched_getaffinity(0, sizeof set, &set) == 0) {
    for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
      if (CPU_ISSET(static_cast<std::size_t>(cpu), &set)) cpus.push_back(cpu);
    }
  }
#endif
  if (cpus.empty()) {
    const int count = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
    for (int cpu = 0; cpu < count; ++cpu) cpus.push_back(cpu);
  }
  return cpus;
}

std::vector<int> physical_cores(const std::vector<int>& cpus, const fs::path& root) {
  std::set<std::string> seen;
  std::vector<int> cores;
  for (const int cpu : cpus) {
    const fs::path topology = root / concat("sys/devices/system/cpu/cpu", cpu, "/topology");
    const auto siblings = read_line(topology / "thread_siblings_list");
    // a system that does not say has one thread a core
    if (!siblings || seen.insert(*siblings).second) cores.push_back(cpu);
  }
  return cores;
}

thread_sources read_thread_sources(std::int32_t option) {
  thread_sources from;
  from.option = option;
  if (const char* text = std::getenv("NIBBLE_NUM_THREADS")) from.nibble_value = text;
  if (const char* text = std::getenv("OMP_NUM_THREADS")) from.omp_value = text;
  from.cores = static_cast<std::int32_t>(physical_cores(allowed_cpus()).size());
  from.quota = read_cgroup_limits().cpus;
  return from;
}

std::int32_t resolve_threads(const thread_sources& from) {
  const auto sensible = [](std::int32_t n) { return n >= 1 && n <= max_threads; };
  if (from.option != 0) {
    if (sensible(from.option)) return from.option;
    throw error(errc::invalid_argument, concat("cannot run ", from.option, " threads; give 1 to ",
                                               max_threads, ", or 0 to let nibble choose"));
  }
  if (from.nibble_value && !from.nibble_value->empty()) {
    const auto n = parse<std::int32_t>(*from.nibble_value);
    if (n && sensible(*n)) return *n;
    throw error(errc::invalid_argument, concat("NIBBLE_NUM_THREADS is '", *from.nibble_value,
                                               "'; it must be a number from 1 to ", max_threads));
  }
  if (from.omp_value) {
    const auto n = parse<std::int32_t>(from.omp_value->substr(0, from.omp_value->find(',')));
    if (n && sensible(*n)) return *n;
  }
  std::int32_t threads = from.cores;
  if (from.quota) threads = std::min(threads, static_cast<std::int32_t>(std::ceil(*from.quota)));
  return std::clamp(threads, 1, max_threads);
}

}  // namespace nibble::inline NIBBLE_ABI

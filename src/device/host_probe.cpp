#include "device/host_probe.hpp"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <nibble/base/concat.hpp>
#include <nibble/base/error.hpp>
#include <set>
#include <sstream>
#include <string_view>
#include <thread>

#if defined(__linux__)
#include <sched.h>
#endif

namespace nibble::inline NIBBLE_ABI {
namespace {

namespace fs = std::filesystem;

std::optional<std::string> read_line(const fs::path& path) {
  std::ifstream in(path);
  std::string line;
  if (!std::getline(in, line)) return std::nullopt;
  return line;
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
std::vector<fs::path> with_parents(const fs::path& mount, const std::string& group) {
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
  std::istringstream words(*line);
  std::string quota, period;
  words >> quota >> period;
  const auto q = parse<std::int64_t>(quota), p = parse<std::int64_t>(period);
  if (!q || !p) return std::nullopt;
  return ratio(static_cast<double>(*q), static_cast<double>(*p));
}

std::optional<double> read_cfs_quota(const fs::path& folder) {
  const auto quota = read_number<std::int64_t>(folder / "cpu.cfs_quota_us");
  const auto period = read_number<std::int64_t>(folder / "cpu.cfs_period_us");
  if (!quota || !period) return std::nullopt;
  return ratio(static_cast<double>(*quota), static_cast<double>(*period));
}

// The group with the least room decides what can still be had.
void take_memory(cgroup_limits& limits, const fs::path& folder, const char* limit_file,
                 const char* used_file) {
  const auto limit = read_number<std::uint64_t>(folder / limit_file);
  if (!limit || (limits.memory_bytes && *limit >= *limits.memory_bytes)) return;
  limits.memory_bytes = limit;
  limits.memory_used = read_number<std::uint64_t>(folder / used_file);
}

bool lists(const std::string& controllers, const std::string& name) {
  std::istringstream in(controllers);
  for (std::string item; std::getline(in, item, ',');) {
    if (item == name) return true;
  }
  return false;
}

}  // namespace

cgroup_limits read_cgroup_limits(const fs::path& root) {
  cgroup_limits limits;
  const fs::path mounts = root / "sys/fs/cgroup";
  std::ifstream in(root / "proc/self/cgroup");
  // each line: hierarchy:controllers:path; version 2 has no controllers
  for (std::string line; std::getline(in, line);) {
    const std::size_t first = line.find(':'), second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    const std::string group = line.substr(second + 1);
    if (controllers.empty()) {
      for (const fs::path& folder : with_parents(mounts, group)) {
        take_smaller(limits.cpus, read_cpu_max(folder));
        take_memory(limits, folder, "memory.max", "memory.current");
      }
    } else if (lists(controllers, "cpu")) {
      for (const fs::path& folder : with_parents(mounts / "cpu", group)) {
        take_smaller(limits.cpus, read_cfs_quota(folder));
      }
    } else if (lists(controllers, "memory")) {
      for (const fs::path& folder : with_parents(mounts / "memory", group)) {
        take_memory(limits, folder, "memory.limit_in_bytes", "memory.usage_in_bytes");
      }
    }
  }
  return limits;
}

memory_state read_memory(const fs::path& root) {
  memory_state memory;
  std::ifstream in(root / "proc/meminfo");
  std::string name, unit;
  for (std::uint64_t kib = 0; in >> name >> kib; std::getline(in, unit)) {
    if (name == "MemTotal:") memory.total = kib * 1024;
    if (name == "MemAvailable:") memory.free = kib * 1024;
  }
  const cgroup_limits limits = read_cgroup_limits(root);
  if (limits.memory_bytes) {
    const std::uint64_t used = std::min(limits.memory_used.value_or(0), *limits.memory_bytes);
    memory.total = std::min(memory.total, *limits.memory_bytes);
    memory.free = std::min(memory.free, *limits.memory_bytes - used);
  }
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

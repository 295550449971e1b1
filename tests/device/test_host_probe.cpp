#include <sys/resource.h>

#include <filesystem>
#include <fstream>
#include <nibble/base/bytes.hpp>
#include <nibble/base/error.hpp>
#include <string>

#include "catch.hpp"
#include "device/host_probe.hpp"

using namespace nibble::literals;

namespace {

namespace fs = std::filesystem;

// A made-up root of /proc and /sys.
class fake_root {
 public:
  explicit fake_root(const char* name)
      : path_(fs::temp_directory_path() / ("nibble-test-root-" + std::string(name))) {
    fs::remove_all(path_);
  }
  ~fake_root() {
    std::error_code ignored;
    fs::remove_all(path_, ignored);
  }

  fake_root& file(const std::string& relative, const std::string& text) {
    fs::create_directories((path_ / relative).parent_path());
    std::ofstream(path_ / relative) << text;
    return *this;
  }
  const fs::path& path() const { return path_; }

 private:
  fs::path path_;
};

nibble::thread_sources sources() {
  nibble::thread_sources s;
  s.cores = 8;
  return s;
}

}  // namespace

TEST_CASE("the number of threads comes from the strongest source") {
  auto s = sources();
  REQUIRE(nibble::resolve_threads(s) == 8);
  s.quota = 2.5;
  REQUIRE(nibble::resolve_threads(s) == 3);
  s.quota = 0.1;
  REQUIRE(nibble::resolve_threads(s) == 1);
  s.omp_value = "6,2";
  REQUIRE(nibble::resolve_threads(s) == 6);
  s.nibble_value.emplace("5");
  REQUIRE(nibble::resolve_threads(s) == 5);
  s.option = 4;
  REQUIRE(nibble::resolve_threads(s) == 4);
}

TEST_CASE("a number of threads that makes no sense is refused or passed over") {
  for (const char* value : {"0", "-3", "many", "4x", "99999"}) {
    auto s = sources();
    s.omp_value = value;
    REQUIRE(nibble::resolve_threads(s) == 8);
    s.nibble_value = value;
    REQUIRE_THROWS_AS(nibble::resolve_threads(s), nibble::error);
  }
  auto s = sources();
  s.nibble_value = "";
  REQUIRE(nibble::resolve_threads(s) == 8);
  s.option = -1;
  REQUIRE_THROWS_AS(nibble::resolve_threads(s), nibble::error);
}

TEST_CASE("hyper-threads of one core count once") {
  fake_root root("cores");
  for (int cpu = 0; cpu < 4; ++cpu) {
    root.file("sys/devices/system/cpu/cpu" + std::to_string(cpu) + "/topology/thread_siblings_list",
              cpu % 2 == 0 ? "0,2\n" : "1,3\n");
  }
  REQUIRE(nibble::physical_cores({0, 1, 2, 3}, root.path()) == std::vector<int>{0, 1});
  REQUIRE(nibble::physical_cores({2, 3}, root.path()) == std::vector<int>{2, 3});
  REQUIRE(nibble::physical_cores({2, 7}, root.path()) == std::vector<int>{2, 7});
}

TEST_CASE("limits of control groups, version 2") {
  fake_root root("v2");
  root.file("proc/self/cgroup", "0::/a/b\n")
      .file("proc/meminfo", "MemTotal: 4194304 kB\nMemFree: 1 kB\nMemAvailable: 3145728 kB\n")
      .file("sys/fs/cgroup/a/b/cpu.max", "max 100000\n")
      .file("sys/fs/cgroup/a/cpu.max", "150000 100000\n")
      .file("sys/fs/cgroup/a/b/memory.max", "max\n")
      .file("sys/fs/cgroup/a/memory.max", "2147483648\n")
      .file("sys/fs/cgroup/a/memory.current", "1073741824\n")
      .file("sys/fs/cgroup/a/memory.stat",
            "anon 1\nfile 536870912\ninactive_file 268435456\nactive_file 268435456\n");
  const auto limits = nibble::read_cgroup_limits(root.path());
  REQUIRE(limits.cpus == 1.5);
  REQUIRE(limits.memory_bytes == 2_GiB);
  const auto memory = nibble::read_memory(root.path());
  REQUIRE(memory.total == 2_GiB);
  REQUIRE(memory.free == 2_GiB - 512_MiB);
}

TEST_CASE("limits of control groups, version 1, seen from inside a container") {
  fake_root root("v1");
  // the group's own folder is not visible: its parent, the mount, is
  root.file("proc/self/cgroup", "4:memory:/docker/x\n3:cpu,cpuacct:/docker/x\n1:name=systemd:/\n")
      .file("proc/meminfo", "MemTotal: 4194304 kB\nMemAvailable: 1048576 kB\n")
      .file("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "400000\n")
      .file("sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n")
      .file("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n")
      .file("sys/fs/cgroup/memory/memory.usage_in_bytes", "1000\n");
  REQUIRE(nibble::read_cgroup_limits(root.path()).cpus == 4.0);
  const auto memory = nibble::read_memory(root.path());
  REQUIRE(memory.total == 4_GiB);
  REQUIRE(memory.free == 1_GiB);
}

TEST_CASE("no quota, no files") {
  fake_root root("none");
  root.file("proc/self/cgroup", "3:cpu:/\n").file("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1\n");
  root.file("sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n");
  REQUIRE_FALSE(nibble::read_cgroup_limits(root.path()).cpus);
  REQUIRE(nibble::read_memory(root.path()).total == 0);
}

TEST_CASE("cached files of a control group are free memory, version 1") {
  fake_root root("v1-cache");
  root.file("proc/self/cgroup", "4:memory:/\n")
      .file("proc/meminfo", "MemTotal: 4194304 kB\nMemAvailable: 4194304 kB\n")
      .file("sys/fs/cgroup/memory/memory.limit_in_bytes", "2147483648\n")
      .file("sys/fs/cgroup/memory/memory.usage_in_bytes", "2147483648\n")
      .file("sys/fs/cgroup/memory/memory.stat",
            "inactive_file 7\ntotal_inactive_file 1073741824\ntotal_active_file 536870912\n");
  REQUIRE(nibble::read_memory(root.path()).free == 1_GiB + 512_MiB);
}

// A sanitizer has terabytes of address space, and would get no more.
#if defined(__linux__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
TEST_CASE("limits of the process itself") {
  fake_root root("ulimit");
  root.file("proc/meminfo", "MemTotal: 4194304 kB\nMemAvailable: 4194304 kB\n")
      .file("proc/self/status", "Name:\ta b\nVmSize:\t 2097152 kB\nVmData:\t 1048576 kB\n");
  REQUIRE(nibble::read_memory(root.path()).free == 4_GiB);
  for (const bool data : {true, false}) {
    struct rlimit before {};
    const auto resource = data ? RLIMIT_DATA : RLIMIT_AS;
    REQUIRE(::getrlimit(resource, &before) == 0);
    if (before.rlim_cur != RLIM_INFINITY) continue;
    struct rlimit limited = before;
    limited.rlim_cur = 3_GiB;
    REQUIRE(::setrlimit(resource, &limited) == 0);
    const auto memory = nibble::read_memory(root.path());
    REQUIRE(::setrlimit(resource, &before) == 0);
    CHECK(memory.total == 3_GiB);
    CHECK(memory.free == (data ? 2_GiB : 1_GiB));
  }
}
#endif

TEST_CASE("this machine has a processor and memory") {
  REQUIRE_FALSE(nibble::allowed_cpus().empty());
  REQUIRE_FALSE(nibble::physical_cores(nibble::allowed_cpus()).empty());
  const auto memory = nibble::read_memory();
  REQUIRE(memory.free <= memory.total);
}

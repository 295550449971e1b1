// Whether the other tests have launched every kernel of the table on every device, with every
// format and every pair of types for keys and values. It runs after them, and reads what they
// wrote.
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <set>

#include "gpu_test.hpp"

namespace {

namespace fs = std::filesystem;

const char* folder() {
  return std::getenv("NIBBLE_GPU_COVERAGE");
}

// Writes what was launched when the process ends.
class launches {
 public:
  ~launches() {
    if (folder() == nullptr) return;
    std::ofstream out(fs::path(folder()) / std::to_string(::getpid()));
    for (const std::string& line : seen) out << line << '\n';
  }
  std::set<std::string> seen;
};

launches& of_process() {
  static launches all;
  return all;
}

// Also of a process that launches nothing.
const launches& from_the_start = of_process();

std::string line_of(const std::string& device, const std::string& what) {
  return device + ": " + what;
}

// What must have been launched on a device.
std::set<std::string> wanted_of_each() {
  std::set<std::string> wanted = {"quantise", "transform", "group_pairs", "add", "route",
                                  "combine",  "select",    "softcap",     "rope"};
  for (const nibble::format_info& format : nibble::format_infos) {
    const std::string name(format.name);
    for (const char* const kernel : {"matmul_f32 ", "embed ", "expert_matmul of floats ",
                                     "expert_matmul of floats, grouped "}) {
      wanted.insert(kernel + name);
    }
    const bool has_blocks =
        nibble::with_format(format.id, []<typename F>(F) { return nibble::block_format<F>; });
    if (!has_blocks) continue;  // such weights meet activations of floats only
    for (const char* const kernel :
         {"matvec ", "matmul ", "expert_matmul of q8 ", "expert_matmul of q8, grouped "}) {
      wanted.insert(kernel + name);
    }
  }
  for (const auto& key : nibble::all_kv_types) {
    for (const auto& value : nibble::all_kv_types) {
      const std::string pair = test::name_of_pair(key.type, value.type);
      for (const char* const kernel : {"attend_prepare ", "attend ", "attend in tiles "}) {
        wanted.insert(kernel + pair);
      }
    }
  }
  return wanted;
}

}  // namespace

void test::note_launch(const std::string& device, const std::string& what) {
  of_process().seen.insert(line_of(device, what));
}

TEST_CASE("every kernel, format, pair of types and device was tested", "[.coverage]") {
  REQUIRE(folder() != nullptr);
  const char* const cases = std::getenv("NIBBLE_GPU_CASES");
  std::set<std::string> seen;
  int processes = 0;
  for (const auto& entry : fs::directory_iterator(folder())) {
    std::ifstream in(entry.path());
    ++processes;
    for (std::string line; std::getline(in, line);) seen.insert(line);
  }
  if (cases != nullptr && processes < std::atoi(cases)) {
    std::cout << "[skipped] only " << processes << " of " << cases << " cases were run\n";
    return;
  }
  const std::set<std::string> wanted = wanted_of_each();
  std::size_t found = 0;
  for (const test::gpu_device& device : test::gpu_devices()) {
    for (const std::string& what : wanted) {
      const bool was_seen = seen.contains(line_of(device.name, what));
      found += was_seen ? 1 : 0;
      if (!was_seen) FAIL_CHECK("not tested: " << line_of(device.name, what));
    }
  }
  const std::size_t devices = test::gpu_devices().size();
  std::cout << "GPU kernels compared: " << found << " combinations of kernel, format or types, and "
            << "device, of " << wanted.size() * devices << " = " << wanted.size() << " x "
            << devices << '\n';
}

// Measured speeds in files: what is kept, and what a file that is not whole does.
#include <stdlib.h>
#include <sys/stat.h>

#include <atomic>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <functional>
#include <nibble/base/error.hpp>
#include <nibble/device/cpu.hpp>
#include <nibble/device/speed.hpp>
#include <nibble/formats/list.hpp>
#include <sstream>
#include <thread>

#include "catch.hpp"
#include "device/speed_cache.hpp"
#include "environment.hpp"
#include "speed_stand_in.hpp"
#include "temporary_folder.hpp"

namespace {

namespace fs = std::filesystem;
namespace formats = nibble::formats;
using nibble::id_of;
using nibble::kv_type;

const std::string key = "a machine";

nibble::device_speed some_speed(double step = 1.0 / 3) {
  nibble::device_speed speed;
  speed.formats = {{id_of<formats::q4_0>, 1e10 / 3, 2e11 / 7}, {id_of<formats::q4_k>, 3e10, 4e11}};
  speed.kv = {{kv_type::f16, 1e10 / 9, 2e9, 3e9}, {kv_type::q8, 4e9, 5e9, 6e9}};
  speed.step_seconds = step;
  speed.step_value_seconds = 1e-9 / 7;
  speed.attend_seconds = 2e-6;
  speed.run_seconds = 3e-7;
  speed.link_bytes_per_second = 1.6e10;
  speed.link_seconds = 1e-5;
  speed.measured = true;
  return speed;
}

bool same(const nibble::device_speed& a, const nibble::device_speed& b) {
  return a.measured == b.measured && nibble::speed_to_text(key, a) == nibble::speed_to_text(key, b);
}

std::string read(const fs::path& path) {
  std::ostringstream out;
  out << std::ifstream(path, std::ios::binary).rdbuf();
  return out.str();
}

nibble::device_info this_cpu() {
  return nibble::describe_cpu({.threads = 2});
}

// find_speed() with the CPU, quickly; counts how often it measures.
struct finder {
  nibble::speed_options options = {};
  int opened = 0;

  explicit finder(const fs::path& folder) {
    options.plan = test::small_plan();
    options.plan.formats = {id_of<formats::q4_0>};
    options.folder = folder;
    options.most_noise = 1e20;  // as busy as this machine may be
  }
  nibble::device_speed find() {
    return nibble::find_speed(
        this_cpu(),
        [&] {
          ++opened;
          return nibble::make_cpu_backend({.threads = 2});
        },
        options);
  }
};

}  // namespace

TEST_CASE("a speed is read as it was written") {
  const test::temporary_folder folder;
  CHECK_FALSE(nibble::load_speed(folder.path(), key));
  nibble::store_speed(folder.path() / "a" / "b", key, some_speed());
  const auto found = nibble::load_speed(folder.path() / "a" / "b", key);
  REQUIRE(found);
  CHECK(same(*found, some_speed()));
  CHECK(found->formats[0].bytes_per_second == 1e10 / 3);
  CHECK(found->kv[1].type == kv_type::q8);
  CHECK_FALSE(nibble::load_speed(folder.path() / "a" / "b", "another machine"));
  CHECK(test::names_in(folder.path() / "a" / "b").size() == 1);
  // a device without a link
  nibble::device_speed cpu = some_speed();
  cpu.link_bytes_per_second = cpu.link_seconds = 0;
  nibble::store_speed(folder.path(), key, cpu);
  CHECK(same(*nibble::load_speed(folder.path(), key), cpu));
}

TEST_CASE("a damaged file counts as none") {
  const std::string text = nibble::speed_to_text(key, some_speed());
  REQUIRE(nibble::speed_from_text(text, key));
  for (std::size_t n = 0; n < text.size(); ++n) {
    CAPTURE(n);
    REQUIRE_FALSE(nibble::speed_from_text(text.substr(0, n), key));
  }
  for (std::size_t i = 0; i < 8 * text.size(); ++i) {
    CAPTURE(i);
    std::string flipped = text;
    flipped[i / 8] = static_cast<char>(flipped[i / 8] ^ (1 << i % 8));
    REQUIRE_FALSE(nibble::speed_from_text(flipped, key));
  }
  CHECK_FALSE(nibble::speed_from_text(text + '\n', key));
  CHECK_FALSE(nibble::speed_from_text(text + text, key));
}

TEST_CASE("numbers that cannot be are refused, however well they are sealed") {
  const auto refused = [](const std::function<void(nibble::device_speed&)>& change) {
    nibble::device_speed speed = some_speed();
    change(speed);
    CHECK_FALSE(nibble::speed_from_text(nibble::speed_to_text(key, speed), key));
  };
  refused([](auto& s) { s.step_seconds = 0; });
  refused([](auto& s) { s.step_value_seconds = -1; });
  refused([](auto& s) { s.attend_seconds = -1; });
  refused([](auto& s) { s.run_seconds = std::nan(""); });
  refused([](auto& s) { s.noise = 0; });
  refused([](auto& s) { s.link_seconds = -1; });
  refused([](auto& s) { s.formats[0].bytes_per_second = HUGE_VAL; });
  refused([](auto& s) { s.formats[1].macs_per_second = 0; });
  refused([](auto& s) { s.formats[1].format = nibble::format_id{16}; });
  refused([](auto& s) { s.formats.clear(); });
  refused([](auto& s) { s.kv[0].prompt_macs_per_second = 0; });
  refused([](auto& s) { s.kv.clear(); });
}

TEST_CASE("what is no file of a speed counts as none, and is replaced where it can be") {
  const test::temporary_folder folder;
  const fs::path path = nibble::speed_path(folder.path(), key);
  const auto check = [&](bool replaced) {
    CHECK_FALSE(nibble::load_speed(folder.path(), key));
    nibble::store_speed(folder.path(), key, some_speed());
    CHECK(nibble::load_speed(folder.path(), key).has_value() == replaced);
    CHECK(test::names_in(folder).size() == 1);
    fs::remove_all(path);
  };
  std::ofstream(path) << "";
  check(true);
  std::ofstream(path) << std::string(1 << 20, 'x');
  check(true);
  // whole, but for what follows
  std::ofstream(path) << nibble::speed_to_text(key, some_speed()) << std::string(1 << 20, '\n');
  check(true);
  REQUIRE(::mkfifo(path.c_str(), 0600) == 0);  // nobody writes to it: opening it must not wait
  check(true);
  fs::create_symlink("/dev/zero", path);
  check(true);
  fs::create_directory(path);
  check(false);
}

TEST_CASE("a folder that cannot be written is no error") {
  const test::temporary_folder folder;
  std::ofstream(folder / "file") << "x";
  for (const fs::path& bad : {folder / "file", folder / "file" / "below", fs::path("/proc/nibble"),
                              fs::path(std::string(5000, 'x')), fs::path()}) {
    nibble::store_speed(bad, key, some_speed());
    CHECK_FALSE(nibble::load_speed(bad, key));
    finder f(bad);
    f.options.cache = !bad.empty();
    CHECK(f.find().measured);
    CHECK(f.opened == 1);
  }
  CHECK(read(folder / "file") == "x");
}

TEST_CASE("several writers leave one whole file") {
  const test::temporary_folder folder;
  nibble::store_speed(folder.path(), key, some_speed(1));
  std::atomic<bool> done = false;
  std::atomic<int> missing = 0, found = 0;
  std::thread reader([&] {
    while (!done) {
      (nibble::load_speed(folder.path(), key) ? found : missing)++;
    }
  });
  {
    std::vector<std::jthread> writers;
    for (int w = 0; w < 4; ++w) {
      writers.emplace_back([&, w] {
        for (int i = 1; i < 50; ++i) nibble::store_speed(folder.path(), key, some_speed(w + i));
      });
    }
  }
  done = true;
  reader.join();
  CHECK(missing == 0);
  CHECK(nibble::load_speed(folder.path(), key));
  CHECK(test::names_in(folder).size() == 1);
}

TEST_CASE("a speed is measured once") {
  const test::temporary_folder folder;
  finder f(folder.path());
  const auto first = f.find();
  CHECK(f.opened == 1);
  CHECK(same(f.find(), first));
  CHECK(f.opened == 1);
  // another format is measured in addition
  f.options.plan.formats = {id_of<formats::q8_0>};
  const auto both = f.find();
  CHECK(f.opened == 2);
  REQUIRE(both.formats.size() == 2);
  CHECK(both.of(id_of<formats::q4_0>).bytes_per_second ==
        first.of(id_of<formats::q4_0>).bytes_per_second);
  f.options.plan.formats = {id_of<formats::q4_0>, id_of<formats::q8_0>};
  CHECK(same(f.find(), both));
  CHECK(f.opened == 2);
  f.options.anew = true;
  f.options.plan.formats = {id_of<formats::q4_0>};
  CHECK(f.find().formats.size() == 1);
  CHECK(f.opened == 3);
  // what was measured beside other programs is not enough
  f.options.most_noise = 0;
  f.options.anew = false;
  f.find();
  CHECK(f.opened == 4);
  f.options.most_noise = 1e20;
  // activations of another type are another device
  f.options.activations = nibble::activation_type::float32;
  f.find();
  CHECK(f.opened == 5);
  CHECK(test::names_in(folder).size() == 2);
}

TEST_CASE("who does not want to measure or keep anything need not") {
  const test::temporary_folder folder;
  finder f(folder.path());
  f.options.measure = false;
  const auto typical = f.find();
  CHECK_FALSE(typical.measured);
  CHECK(typical.formats.size() == nibble::format_infos.size());
  CHECK(f.opened == 0);
  f.options.measure = true;
  f.options.cache = false;
  CHECK(f.find().measured);
  CHECK(f.find().measured);
  CHECK(f.opened == 2);
  CHECK(test::names_in(folder).empty());
  // what was measured before is taken by who does not measure
  f.options.cache = true;
  const auto measured = f.find();
  f.options.measure = false;
  f.options.plan.formats = {id_of<formats::q6_k>};
  CHECK(same(f.find(), measured));
  CHECK(f.opened == 3);
}

TEST_CASE("files lie where the environment says") {
  const test::variable own("NIBBLE_CACHE_DIR", "/own");
  CHECK(nibble::speed_folder({}) == "/own");
  CHECK(nibble::speed_folder("/given") == "/given");
  {
    const test::variable none("NIBBLE_CACHE_DIR", "");
    CHECK(nibble::speed_folder({}).empty());
  }
  ::unsetenv("NIBBLE_CACHE_DIR");  // `own` sets it back
  const test::variable home("HOME", "/home/somebody");
  const test::variable cache("XDG_CACHE_HOME", "/cache");
  CHECK(nibble::speed_folder({}) == "/cache/nibble");
  const test::variable relative("XDG_CACHE_HOME", "cache");
  CHECK(nibble::speed_folder({}) == "/home/somebody/.cache/nibble");
  const test::variable nowhere("HOME", "");
  CHECK(nibble::speed_folder({}).empty());
}

TEST_CASE("a key has one line, and tells machines apart") {
  const test::temporary_folder root;
  const auto file = [&](const std::string& name, const std::string& text) {
    fs::create_directories((root.path() / name).parent_path());
    std::ofstream(root.path() / name) << text;
  };
  const auto key_of = [&](const nibble::device_info& device) {
    const auto key = nibble::speed_key(device, nibble::activation_type::int8, root.path());
    CHECK(key.find('\n') == key.npos);
    CHECK(key.size() < 2000);
    return key;
  };
  nibble::device_info cpu{
      .kind = nibble::device_kind::cpu, .id = "cpu", .name = "CPU", .threads = 4};
  const auto unknown = key_of(cpu);
  file("proc/cpuinfo", "processor\t: 0\nmodel name\t: Some CPU @ 3 GHz\nflags\t: a b\n\nprocessor");
  const auto known = key_of(cpu);
  CHECK(known != unknown);
  CHECK(known.find("Some CPU @ 3 GHz") != known.npos);
  cpu.threads = 5;
  CHECK(key_of(cpu) != known);
  file("proc/cpuinfo", "processor : 0\nCPU implementer : 0x41\nCPU part : 0xd0c\n");
  CHECK(key_of(cpu).find("0x41 0xd0c") != known.npos);
  file("proc/cpuinfo", std::string(100000, 'x') + ":" + std::string(100000, 'y'));
  key_of(cpu);
  cpu.name = "a\nname\x01";
  key_of(cpu);
  nibble::device_info gpu{.kind = nibble::device_kind::cuda, .id = "cuda0", .name = "GPU"};
  const auto before = key_of(gpu);
  file("proc/driver/nvidia/version", "NVRM version: 555.1\nGCC\n");
  CHECK(key_of(gpu) == before + "; NVRM version: 555.1");
}

// Speeds of devices: measured on stand-ins whose speed is known and on real ones, and derived.
#include <algorithm>
#include <cmath>
#include <functional>
#include <nibble/base/error.hpp>
#include <nibble/device/cpu.hpp>
#include <nibble/device/gpu.hpp>
#include <nibble/device/speed.hpp>
#include <nibble/formats/decode.hpp>
#include <nibble/formats/list.hpp>

#include "catch.hpp"
#include "emulated/emulated.hpp"
#include "errors.hpp"
#include "speed_stand_in.hpp"

namespace {

using nibble::format_id;
using nibble::id_of;
using nibble::kv_type;
namespace formats = nibble::formats;

void check_number(double x) {
  CHECK(std::isfinite(x));
  CHECK(x > 0);
}

void check_numbers(const nibble::device_speed& speed) {
  for (const nibble::format_speed& s : speed.formats) {
    CAPTURE(nibble::format_name(s.format));
    check_number(s.bytes_per_second);
    check_number(s.macs_per_second);
  }
  for (const nibble::kv_speed& s : speed.kv) {
    CAPTURE(nibble::info_of(s.type).name);
    check_number(s.bytes_per_second);
    check_number(s.macs_per_second);
    check_number(s.prompt_macs_per_second);
  }
  check_number(speed.step_seconds);
  check_number(speed.step_value_seconds);
  check_number(speed.attend_seconds);
  check_number(speed.run_seconds);
}

bool near(double x, double expected) {
  return std::abs(x - expected) < 0.03 * expected;
}

}  // namespace

TEST_CASE("the speed of a device that is known is what is measured") {
  test::known_speed known;
  double time = 0;
  test::speed_stand_in device(known, [&](double seconds) { time += seconds; });
  nibble::speed_plan plan = test::small_plan();
  plan.formats = {id_of<formats::q4_0>, id_of<formats::f16>};
  const auto check = [&](const nibble::device_speed& speed) {
    CHECK(speed.measured);
    REQUIRE(speed.formats.size() == 2);
    CHECK(speed.formats[0].format == id_of<formats::f16>);
    for (const nibble::format_speed& s : speed.formats) {
      CHECK(near(s.bytes_per_second, known.bytes_per_second));
      CHECK(near(s.macs_per_second, known.macs_per_second));
    }
    REQUIRE(speed.kv.size() == 1);
    CHECK(near(speed.kv[0].bytes_per_second, known.kv_bytes_per_second));
    CHECK(near(speed.kv[0].macs_per_second, known.kv_macs_per_second));
    CHECK(near(speed.kv[0].prompt_macs_per_second, known.prompt_macs_per_second));
    CHECK(near(speed.step_seconds, known.step_seconds));
    CHECK(near(speed.step_value_seconds, known.step_value_seconds));
    CHECK(near(speed.attend_seconds, known.attend_seconds));
    CHECK(near(speed.run_seconds, known.run_seconds));
    CHECK(near(speed.link_bytes_per_second, known.link_bytes_per_second));
    CHECK(near(speed.link_seconds, known.link_seconds));
  };
  check(nibble::measure_speed(device, plan, [&] { return time; }));
  // so fast that pairs of products are not timed apart
  for (double* rate : {&known.bytes_per_second, &known.macs_per_second, &known.kv_bytes_per_second,
                       &known.kv_macs_per_second, &known.prompt_macs_per_second}) {
    *rate *= 300;
  }
  known.step_seconds = 2e-7;
  known.step_value_seconds = 1e-9;
  plan.depth = 4096;
  plan.weight_bytes = 64 << 20;
  test::speed_stand_in fast(known, [&](double seconds) { time += seconds; });
  check(nibble::measure_speed(fast, plan, [&] { return time; }));
}

TEST_CASE("a device that sleeps is not measured as faster than it sleeps") {
  test::known_speed known;
  known.bytes_per_second = 10e6;
  known.run_seconds = known.step_seconds = 1e-4;
  test::speed_stand_in device(known, test::sleep_for);
  nibble::speed_plan plan = test::small_plan();
  plan.formats = {id_of<formats::q8_0>};
  const auto speed = nibble::measure_speed(device, plan);
  check_numbers(speed);
  CHECK(speed.run_seconds >= known.run_seconds);
  // what is fixed is taken off, and may have been measured as too much
  CHECK(speed.formats[0].bytes_per_second < 1.5 * known.bytes_per_second);
}

TEST_CASE("the CPU is measured with every format") {
  nibble::speed_plan plan = test::small_plan();
  for (const nibble::format_info& info : nibble::format_infos) plan.formats.push_back(info.id);
  plan.kv_types.clear();
  for (const auto& info : nibble::all_kv_types) plan.kv_types.push_back(info.type);
  const auto speed = nibble::measure_speed(*nibble::make_cpu_backend({.threads = 2}), plan);
  check_numbers(speed);
  CHECK(speed.measured);
  REQUIRE(speed.formats.size() == plan.formats.size());
  for (std::size_t i = 0; i < plan.formats.size(); ++i) {
    CHECK(speed.formats[i].format == plan.formats[i]);
  }
  CHECK(speed.kv.size() == plan.kv_types.size());
  CHECK(speed.link_bytes_per_second == 0);
  CHECK(speed.link_seconds == 0);
}

TEST_CASE("a GPU is measured, its link too") {
  nibble::gpu::emulated_module module(std::vector{nibble::gpu::emulated_options{.os_threads = 2}});
  nibble::speed_plan plan = test::small_plan();
  plan.layers = 1;
  plan.formats = {id_of<formats::q4_0>};
  plan.weight_bytes = 256 << 10;
  plan.depth = 64;
  const auto speed = nibble::measure_speed(*nibble::make_gpu_backend(module, 0), plan);
  check_numbers(speed);
  check_number(speed.link_bytes_per_second);
  check_number(speed.link_seconds);
}

TEST_CASE("random weights are finite in every format") {
  for (const nibble::format_info& info : nibble::format_infos) {
    CAPTURE(info.name);
    const std::size_t n = 1024;
    std::vector<std::byte> row(nibble::row_bytes(info.id, n));
    nibble::fill_with_weights(info.id, row);
    std::vector<float> values(n);
    nibble::decode_row(info.id, row.data(), n, values.data());
    for (const float v : values) REQUIRE(std::abs(v) < 1000);
    CHECK(std::any_of(values.begin(), values.end(), [](float v) { return v != 0; }));
  }
}

TEST_CASE("plans that cannot be measured are refused") {
  const auto refused = [](const std::function<void(nibble::speed_plan&)>& change) {
    nibble::speed_plan plan = test::small_plan();
    change(plan);
    test::check_error(test::thrown([&] {
                        nibble::measure_speed(*nibble::make_cpu_backend({.threads = 1}), plan);
                      }),
                      nibble::errc::invalid_argument, {"a plan of what to measure"});
  };
  refused([](auto& p) { p.columns = 100; });
  refused([](auto& p) { p.rows = 0; });
  refused([](auto& p) { p.heads = 3; });
  refused([](auto& p) { p.heads_kv = 0; });
  refused([](auto& p) { p.head_length = 12; });
  refused([](auto& p) { p.layers = 0; });
  refused([](auto& p) { p.prompt_tokens = p.depth + 1; });
  nibble::speed_plan plan = test::small_plan();
  plan.formats = {format_id{16}};
  test::check_error(test::thrown([&] { nibble::measure_speed(*nibble::make_cpu_backend(), plan); }),
                    nibble::errc::unsupported, {"iq2_xxs"});
}

TEST_CASE("a format that was not measured counts as the nearest one") {
  nibble::device_speed speed;
  CHECK_THROWS_AS(speed.of(id_of<formats::q4_0>), nibble::error);
  CHECK_THROWS_AS(speed.of(kv_type::f16), nibble::error);
  speed.formats = {
      {id_of<formats::f16>, 16, 1}, {id_of<formats::q4_0>, 4, 2}, {id_of<formats::q8_0>, 8, 3}};
  const auto like = [&](format_id format) { return speed.of(format).bytes_per_second; };
  CHECK(like(id_of<formats::q4_0>) == 4);
  CHECK(like(id_of<formats::q4_k>) == 4);
  CHECK(like(id_of<formats::tq1_0>) == 4);
  CHECK(like(id_of<formats::q6_k>) == 8);  // 6.56 bits: 4.5 is as far as 8.5, nearly
  CHECK(like(id_of<formats::bf16>) == 16);
  CHECK(like(id_of<formats::f32>) == 16);
  CHECK(speed.of(id_of<formats::q6_k>).format == id_of<formats::q6_k>);
  speed.formats.erase(speed.formats.begin());
  CHECK(like(id_of<formats::f32>) == 8);  // no floats: blocks
  test::check_error(test::thrown([&] { (void)speed.of(format_id{16}); }), nibble::errc::unsupported,
                    {"iq2_xxs"});
  speed.kv = {{kv_type::f16, 1, 1, 1}, {kv_type::q4, 2, 2, 2}};
  CHECK(speed.of(kv_type::bf16).bytes_per_second == 1);
  CHECK(speed.of(kv_type::f32).bytes_per_second == 1);
  CHECK(speed.of(kv_type::q8).bytes_per_second == 2);
  CHECK(speed.of(kv_type::q8).type == kv_type::q8);
}

TEST_CASE("typical speeds follow from data sheets") {
  for (const auto kind : {nibble::device_kind::cpu, nibble::device_kind::cuda,
                          nibble::device_kind::hip, nibble::device_kind::emulated}) {
    const nibble::device_info info{.kind = kind, .id = "x", .name = "x", .threads = 8};
    const nibble::device_sheet sheet = nibble::typical_sheet(info);
    const nibble::device_speed speed = nibble::speed_of(kind, sheet);
    check_numbers(speed);
    CHECK_FALSE(speed.measured);
    CHECK(speed.formats.size() == nibble::format_infos.size());
    CHECK(speed.kv.size() == nibble::all_kv_types.size());
    CHECK((speed.link_bytes_per_second > 0) == (kind != nibble::device_kind::cpu));
    const auto q4 = speed.of(id_of<formats::q4_0>);
    CHECK(q4.bytes_per_second < sheet.memory_bytes_per_second);
    CHECK(q4.macs_per_second < sheet.int8_macs_per_second);
  }
  // a data sheet without rates of computing
  const auto gpu = nibble::speed_of(nibble::device_kind::cuda, {.memory_bytes_per_second = 1008e9});
  check_numbers(gpu);
  CHECK(gpu.of(id_of<formats::q4_0>).bytes_per_second > 500e9);
  CHECK(gpu.of(id_of<formats::q4_0>).macs_per_second > 20e12);
  CHECK(gpu.link_bytes_per_second == 0);
  check_numbers(nibble::speed_of(nibble::device_kind::cpu, {}));
}

TEST_CASE("what PCI Express carries") {
  CHECK(*nibble::pcie_bytes_per_second(1, 1) == 250e6);
  CHECK(near(*nibble::pcie_bytes_per_second(3, 16), 15.75e9));
  CHECK(near(*nibble::pcie_bytes_per_second(4, 16), 31.5e9));
  CHECK(near(*nibble::pcie_bytes_per_second(5, 8), 31.5e9));
  for (int generation = 2; generation <= 7; ++generation) {
    CHECK(*nibble::pcie_bytes_per_second(generation, 4) >
          1.8 * *nibble::pcie_bytes_per_second(generation - 1, 4));
  }
  for (const auto& [generation, lanes] : {std::pair{0, 16}, {8, 16}, {4, 0}, {4, 3}, {4, 32}}) {
    CHECK_FALSE(nibble::pcie_bytes_per_second(generation, lanes));
  }
}

// GPUs as backends: what is refused, and what happens when a device fails. On the emulated device,
// which fails when it is told to.
#include <nibble/base/error.hpp>
#include <nibble/device/gpu.hpp>
#include <nibble/device/probe.hpp>
#include <optional>

#include "catch.hpp"
#include "emulated/emulated.hpp"
#include "errors.hpp"
#include "models.hpp"

namespace {

using nibble::errc;

constexpr nibble::program_limits limits{16, 16};

// A small model on a device with these options, run once: its logits.
std::vector<float> run_on(const nibble::gpu::emulated_options& options, bool twice = false) {
  nibble::gpu::emulated_module module(std::vector{options});
  test::small_model model;
  model.quantised = true;
  test::weight_store weights;
  const auto recording = model.record(weights);
  test::runner device(recording, weights,
                      nibble::make_gpu_backend(module, 0, {nibble::activation_type::int8}), limits,
                      model.layout(80, nibble::kv_type::q8));
  auto logits = device.run(test::plain_batch(3));
  if (twice) logits = device.run(test::plain_batch(1, 3));
  return logits;
}

}  // namespace

TEST_CASE("each allocation of a GPU that fails is an error that names the device") {
  const auto expected = run_on({});
  std::int64_t n = 1;
  for (;; ++n) {
    REQUIRE(n < 100);
    CAPTURE(n);
    std::optional<nibble::error> seen;
    std::vector<float> logits;
    try {
      logits = run_on({.fail_allocation = n});
    } catch (const nibble::error& e) {
      seen = e;
    }
    if (!seen) {
      CHECK(logits == expected);  // there are fewer
      break;
    }
    CHECK(seen->code() == errc::out_of_memory);
    CHECK(seen->device() == "emulated0 (emulated CUDA device)");
    CHECK(std::string(seen->what()).find("bytes") != std::string::npos);
  }
  CHECK(n > 5);  // weights, a workspace, pinned memory, a cache
}

TEST_CASE("a GPU that is lost while it works is an error, not a crash") {
  for (const std::int64_t n : {1, 2, 5, 9}) {
    CAPTURE(n);
    test::check_error(test::thrown([&] { run_on({.fail_launch = n}, true); }), errc::device,
                      {"emulated0"});
    test::check_error(test::thrown([&] { run_on({.fail_transfer = n}, true); }), errc::device,
                      {"emulated0"});
  }
}

TEST_CASE("a model that a GPU has no memory for is refused") {
  test::check_error(test::thrown([&] { run_on({.memory = 16 << 10}); }), errc::out_of_memory,
                    {"emulated0"});
}

TEST_CASE("heads that kernels for GPUs do not take are refused by layer") {
  nibble::gpu::emulated_module module(std::vector{nibble::gpu::emulated_options{}});
  test::small_model model;
  model.key_length = 520;
  test::weight_store weights;
  const auto recording = model.record(weights);
  const auto device = nibble::make_gpu_backend(module, 0);
  test::check_error(test::thrown([&] { device->workspace_of(recording, limits); }),
                    errc::unsupported, {"heads of 520 values"});
}

TEST_CASE("a batch of a GPU has one cache") {
  nibble::gpu::emulated_module module(std::vector{nibble::gpu::emulated_options{}});
  test::small_model model;
  test::weight_store weights;
  const auto recording = model.record(weights);
  test::runner device(recording, weights, nibble::make_gpu_backend(module, 0), limits,
                      model.layout(80));
  const auto other = device.backend().make_cache(
      model.layout(80).layout, std::vector<std::int32_t>(device.cache()->groups().size(), 2));
  const std::vector<nibble::token> tokens{1, 2};
  const std::vector<nibble::batch_chunk> chunks{{device.cache(), device.table(0), 0, 1, 0},
                                                {other.get(), device.table(1), 1, 1, 0}};
  CHECK_THROWS_AS(device.program().submit({tokens, chunks, {}}), nibble::error);
}

TEST_CASE("devices: there is a CPU, and what cannot be used is explained") {
  const auto found = nibble::devices::probe();
  REQUIRE(!found.all.empty());
  CHECK(found.all.back().id == "cpu");
  for (const std::string& note : found.notes) CHECK(note.back() == '.');
  test::check_error(test::thrown([&] { found.modules->open("cuda99"); }), errc::invalid_argument,
                    {"there is no device 'cuda99'"});
}

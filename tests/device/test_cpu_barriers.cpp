// Where threads wait in a decoded token.
#include "catch.hpp"
#include "cpu/select.hpp"
#include "device/cpu_barriers.hpp"
#include "device/cpu_step_maker.hpp"
#include "models.hpp"

namespace {

std::vector<std::string> waits(const nibble::recording& r, int threads, bool single) {
  const nibble::program_limits limits{4, 4};
  const auto type = nibble::activation_type::int8;
  const auto bytes = nibble::lay_out_program(r, limits, type, threads, nullptr).bytes;
  std::vector<std::byte> space(bytes + 256);
  const auto memory = nibble::lay_out_program(r, limits, type, threads, space.data());
  nibble::cpu_step_maker maker(r, *nibble::cpu::available_kernels().back(), type, memory);
  std::vector<std::unique_ptr<nibble::cpu_step>> steps;
  for (const auto& s : r.steps) {
    steps.push_back(std::visit([&](const auto& kind) { return maker.make(kind); }, s));
  }
  std::vector<std::string> out;
  const auto before = nibble::place_barriers(r, limits, memory.values, steps, single);
  for (std::size_t i = 0; i < steps.size(); ++i) {
    if (before[i]) out.push_back(nibble::step_name(r.steps[i]));
    if (steps[i]->meets_inside(single)) out.push_back("inside");
  }
  return out;
}

std::vector<std::string> waits(const test::small_model& model, int threads, bool single) {
  test::weight_store weights;
  return waits(model.record(weights), threads, single);
}

using list = std::vector<std::string>;

}  // namespace

TEST_CASE("a dense layer waits eight times for a single token") {
  test::small_model model;
  model.quantised = true;
  model.n_layer = 1;
  model.key_length = model.value_length = 32;
  REQUIRE(waits(model, 2, true) == list{"matmul", "attend", "matmul", "inside", "matmul", "gate",
                                        "matmul", "inside", "select", "matmul"});
}

TEST_CASE("a row is not written while others may still normalise it") {
  test::weight_store weights;
  nibble::recording r;
  r.input = r.output = r.make(64);
  const nibble::value y = r.make(64);
  const nibble::rms_norm norm{weights.f32(test::shape_of(64)), 1e-5f};
  const nibble::linear square{weights.q8_0(test::shape_of(64, 64)), nullptr, y};
  r.emit(nibble::matmul_step{r.input, norm, {square}, false});
  r.emit(nibble::add_step{y, r.output, {}});
  REQUIRE(waits(r, 2, true) == list{"add"});
}

#include <algorithm>
#include <nibble/base/error.hpp>
#include <nibble/device/step_values.hpp>

#include "catch.hpp"
#include "models.hpp"

namespace {

// A recording of additions between random values, each written before it is read.
nibble::recording random_recording(std::mt19937& random) {
  nibble::recording r;
  const auto below = [&](int n) { return std::uniform_int_distribution<int>(0, n - 1)(random); };
  const int n_values = 2 + below(30);
  for (int i = 0; i < n_values; ++i) r.make(1 + below(300));
  r.input = {below(n_values)};
  const int n_steps = 1 + below(60);
  for (int i = 0; i < n_steps; ++i) {
    r.emit(nibble::add_step{{below(n_values)}, {below(n_values)}, {}});
  }
  r.output = {below(n_values)};
  return r;
}

// Whether v holds something that is still needed at the end of step `i`, or is touched by it: found
// by looking at every step, unlike the intervals of the packing.
bool alive(const nibble::recording& r, nibble::value v, int i) {
  const auto touches = [&](int s) {
    bool found = false;
    nibble::for_each_value(r.steps[static_cast<std::size_t>(s)],
                           [&](nibble::value u, nibble::value_access) { found |= u == v; });
    return found;
  };
  bool before = v == r.input, after = v == r.output;
  const int n = static_cast<int>(r.steps.size());
  for (int s = 0; s <= i; ++s) before = before || touches(s);
  for (int s = i; s < n; ++s) after = after || touches(s);
  return before && after;
}

// The packing by its definition, each value compared with all others.
std::vector<std::size_t> plain_offsets(const nibble::recording& r, nibble::program_limits limits) {
  const std::size_t n = r.values.size();
  const auto bytes = [&](std::size_t i) {
    const std::size_t align = nibble::workspace_alignment;
    return (nibble::value_bytes(r.values[i], limits) + align - 1) / align * align;
  };
  const auto lives = [&](std::size_t i, int step) {
    const nibble::value v{static_cast<std::int32_t>(i)};
    if (step < 0) return v == r.input;
    if (step == static_cast<int>(r.steps.size())) return v == r.output;
    return alive(r, v, step);
  };
  std::vector<std::size_t> order(n), offset(n, 0), placed;
  for (std::size_t i = 0; i < n; ++i) order[i] = i;
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return bytes(a) > bytes(b); });
  for (const std::size_t i : order) {
    std::vector<std::pair<std::size_t, std::size_t>> taken;  // begin, end
    bool used = false;
    for (int s = -1; s <= static_cast<int>(r.steps.size()); ++s) {
      if (!lives(i, s)) continue;
      used = true;
      for (const std::size_t j : placed) {
        if (lives(j, s)) taken.emplace_back(offset[j], offset[j] + bytes(j));
      }
    }
    if (!used) continue;
    std::sort(taken.begin(), taken.end());
    for (const auto& [begin, end] : taken) {
      if (offset[i] + bytes(i) <= begin) break;
      offset[i] = std::max(offset[i], end);
    }
    placed.push_back(i);
  }
  return offset;
}

}  // namespace

TEST_CASE("a workspace is laid out as by its definition") {
  std::mt19937 random(5);
  for (int round = 0; round < 60; ++round) {
    const auto r = random_recording(random);
    const nibble::program_limits limits{1 + round % 5, 1};
    CAPTURE(round);
    REQUIRE(nibble::lay_out_workspace(r, limits).offset == plain_offsets(r, limits));
  }
}

TEST_CASE("values that live at the same time do not overlap") {
  std::mt19937 random(3);
  for (int round = 0; round < 200; ++round) {
    const auto r = random_recording(random);
    const nibble::program_limits limits{1 + round % 5, 1};
    const auto layout = nibble::lay_out_workspace(r, limits);
    for (int s = 0; s < static_cast<int>(r.steps.size()); ++s) {
      for (std::int32_t a = 0; a < static_cast<std::int32_t>(r.values.size()); ++a) {
        if (!alive(r, {a}, s)) continue;
        const std::size_t begin = layout.offset[static_cast<std::size_t>(a)];
        const std::size_t end = begin + nibble::value_bytes(r.info({a}), limits);
        REQUIRE(begin % nibble::workspace_alignment == 0);
        REQUIRE(end <= layout.bytes);
        for (std::int32_t b = 0; b < a; ++b) {
          if (!alive(r, {b}, s)) continue;
          const std::size_t other = layout.offset[static_cast<std::size_t>(b)];
          CAPTURE(round, s, a, b);
          REQUIRE((end <= other || other + nibble::value_bytes(r.info({b}), limits) <= begin));
        }
      }
    }
  }
}

TEST_CASE("a chain of values takes the room of two") {
  nibble::recording r;
  r.input = r.make(64);
  nibble::value last = r.input;
  for (int i = 0; i < 20; ++i) {
    const auto next = r.make(64);
    r.emit(nibble::norm_step{last, next, {}});
    last = next;
  }
  r.output = last;
  REQUIRE(nibble::lay_out_workspace(r, {4, 1}).bytes == 2 * 64 * 4 * 4);
}

TEST_CASE("rows follow the limit of their kind") {
  nibble::recording r;
  r.input = r.make(64);
  r.output = r.make({64, nibble::value_rows::per_output});
  r.emit(nibble::select_step{r.input, r.output});
  REQUIRE(nibble::lay_out_workspace(r, {4, 2}).bytes == (4 + 2) * 64 * 4);
}

namespace {

void refused(const nibble::recording& r, const std::string& expected) {
  try {
    nibble::check_recording(r);
  } catch (const nibble::error& e) {
    const std::string what = e.what();
    CAPTURE(what, expected);
    REQUIRE(e.code() == nibble::errc::invalid_argument);
    REQUIRE(what.find(expected) != std::string::npos);
    return;
  }
  FAIL("not refused: " << expected);
}

}  // namespace

TEST_CASE("recordings that make no sense are refused, by step") {
  test::weight_store w;
  test::small_model model;
  model.experts = true;
  const auto good = model.record(w);
  nibble::check_recording(good);
  using namespace nibble;

  const auto changed = [&](auto change) {
    auto r = good;
    change(r);
    return r;
  };
  const auto at = [](recording& r, std::size_t i, auto kind) -> decltype(kind)& {
    return std::get<decltype(kind)>(r.steps[i]);
  };
  // the steps of a layer: matmul, attend, matmul, norm, matmul, route, expert_matmul, gate, ...
  refused(changed([&](recording& r) { at(r, 0, embed_step{}).out.id = 999; }), "step 0 (embed)");
  refused(changed([&](recording& r) { at(r, 0, embed_step{}).table = nullptr; }),
          "step 0 (embed): table is missing");
  refused(changed([&](recording& r) { r.steps.erase(r.steps.begin()); }),
          "step 0 (matmul): reads value 0, which no step before it has written");
  refused(changed([&](recording& r) { at(r, 1, matmul_step{}).outputs[0].matrix = w.f32({}); }),
          "step 1 (matmul): matrix has shape [1]; it must have 64 columns");
  refused(changed([&](recording& r) {
            at(r, 1, matmul_step{}).norm->gain = w.q8_0(test::shape_of(64));
          }),
          "step 1 (matmul): norm is q8_0; it must be f32");
  refused(changed([&](recording& r) {
            at(r, 1, matmul_step{}).outputs[1].out = at(r, 1, matmul_step{}).outputs[0].out;
          }),
          "step 1 (matmul): out");
  refused(changed([&](recording& r) { at(r, 2, attend_step{}).spec.n_head_kv = 3; }),
          "step 2 (attend): 4 heads cannot share 3");
  refused(changed([&](recording& r) { at(r, 2, attend_step{}).spec.key_length = 8; }),
          "step 2 (attend): q (value");
  refused(changed([&](recording& r) { at(r, 2, attend_step{}).spec.rope.frequencies.resize(9); }),
          "step 2 (attend): rope has 9 frequencies");
  refused(changed([&](recording& r) {
            r.values[static_cast<std::size_t>(at(r, 6, route_step{}).selection.id)].element =
                value_element::f32;
          }),
          "step 6 (route): selection");
  refused(changed([&](recording& r) { at(r, 7, expert_matmul_step{}).in_per_slot = true; }),
          "step 7 (expert_matmul): in has width 64, which 3 slots");
  refused(changed([&](recording& r) {
            at(r, 10, combine_step{}).weights = at(r, 6, route_step{}).logits;
          }),
          "step 10 (combine): in");
  refused(changed([&](recording& r) { r.output = {1000}; }), "border names value 1000");
  refused(changed([&](recording& r) { r.output = r.make(5); }), "no step writes");
  refused(changed([&](recording& r) { r.values[3].width = 0; }), "value 3 of the recording");
}

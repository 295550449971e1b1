// All step kinds together, in small transformers, against the reference in double precision.
#include <nibble/base/error.hpp>
#include <vector>

#include "catch.hpp"
#include "models.hpp"
#include "places.hpp"

namespace {

struct named_model {
  const char* name;
  test::small_model model;
};

std::vector<named_model> variants() {
  using nibble::gate_kind;
  using nibble::rope_style;
  std::vector<named_model> all{{"plain", {}}};
  const auto add = [&](const char* name) -> test::small_model& {
    all.push_back({name, {}});
    return all.back().model;
  };
  add("quantised weights").quantised = true;
  add("biases").biases = true;
  add("scales").scales = true;
  auto& scaled = add("scales of quantised experts, before biases");
  scaled.scales = scaled.quantised = scaled.experts = scaled.biases = true;
  add("rope norm").rope = rope_style::norm;
  add("no rope").rope = rope_style::none;
  add("window").window = 5;
  add("attention softcap").attention_softcap = 2;
  add("output softcap").output_softcap = 3;
  add("sinks").sinks = true;
  add("head norms").head_norms = true;
  add("temperature").temperature_scale = 0.5f;
  add("post norms").post_norm = true;
  add("gelu").gate = gate_kind::gelu_tanh;
  add("relu squared").gate = gate_kind::relu_squared;
  add("experts").experts = true;
  auto& clamped = add("experts with biases, clamped gate");
  clamped.experts = clamped.biases = true;
  clamped.gate = gate_kind::swiglu_clamped;
  auto& quantised = add("quantised experts");
  quantised.experts = quantised.quantised = true;
  auto& odd = add("odd sizes");
  odd.n_embd = 37;
  odd.n_ff = 51;
  odd.n_vocab = 23;
  odd.n_head = 3;
  odd.n_head_kv = 1;
  odd.key_length = 10;
  odd.value_length = 7;
  auto& odd_experts = add("odd sizes of experts with biases");
  odd_experts.experts = odd_experts.biases = true;
  odd_experts.n_embd = 37;
  odd_experts.n_ff = 51;
  auto& wide = add("values longer than keys, one kv head a head");
  wide.n_head_kv = 4;
  wide.key_length = 8;
  wide.value_length = 24;
  return all;
}

// Two prompts and later a token of each beside a third prompt.
std::vector<test::reference_batch> several_sequences() {
  test::reference_batch prompts, mixed;
  prompts.tokens = {1, 5, 9, 2, 7, 3, 3, 8};
  prompts.chunks = {{0, 0, 5, 0}, {1, 5, 3, 0}};
  prompts.outputs = {4, 7};
  mixed.tokens = {4, 6, 10, 11, 12, 13};
  mixed.chunks = {{1, 0, 1, 3}, {2, 1, 4, 0}, {0, 5, 1, 5}};
  mixed.outputs = {0, 2, 5};
  return {prompts, mixed};
}

nibble::cpu_options options(int threads, nibble::activation_type type) {
  nibble::cpu_options o;
  o.threads = threads;
  o.activations = type;
  return o;
}

constexpr auto exact = nibble::activation_type::float32;
constexpr auto int8 = nibble::activation_type::int8;
constexpr nibble::program_limits limits{80, 80};

}  // namespace

// The tests of kernels run on all emulated GPUs; here each case takes one of them in turn.
std::vector<test::place> places_in_turn() {
  static std::size_t turn = 0;
  std::vector<test::place> emulated = test::emulated_places();
  if (emulated.empty()) return {};
  return {emulated[turn++ % emulated.size()]};
}

TEST_CASE("every kind of step agrees with the reference") {
  for (const auto& [name, model] : variants()) {
    for (const auto type : {nibble::kv_type::f32, nibble::kv_type::f16}) {
      std::vector<test::place> places = places_in_turn();
      for (const int threads : {1, 2, 3}) places.push_back(test::cpu_place(threads));
      for (const auto& place : places) {
        CAPTURE(name, place.name, type == nibble::kv_type::f16);
        test::weight_store weights;
        const auto recording = model.record(weights);
        const auto layout = model.layout(80, type);
        test::runner device(recording, weights, place.open(exact), limits, layout);
        test::reference reference(recording, layout.layout);
        // a rounding to f16, of keys and values or of what GELU takes, may fall to the other side
        const bool halves =
            type == nibble::kv_type::f16 || model.gate == nibble::gate_kind::gelu_tanh;
        // GPUs attend in tiles to what is stored in less than 32 bits, and round queries and their
        // weights to halves for that: scores of up to 20 err by 20 * 2^-11
        const bool tiles = place.emulated && type == nibble::kv_type::f16;
        const double bound = tiles ? 1e-2 : halves ? 2e-3 : 2e-5;
        for (const auto& batch : several_sequences()) {
          const auto got = device.run(batch);
          reference.run(batch);
          REQUIRE(test::difference(got, reference.output()) < bound);
        }
        const auto long_prompt = test::plain_batch(70);
        const auto got = device.run(long_prompt);  // begins again, over more than one page
        reference.run(long_prompt);
        REQUIRE(test::difference(got, reference.output()) < bound);
      }
    }
  }
}

TEST_CASE("keys and values of all types, rotated or not, agree with the reference") {
  for (const auto& key : nibble::all_kv_types) {
    for (const auto& value : nibble::all_kv_types) {
      for (const bool rotated : {false, true}) {
        test::small_model model;
        model.n_layer = 1;  // what one layer rounds to another code changes all that follows
        model.key_length = 24;
        model.value_length = 40;
        model.sinks = rotated;
        test::weight_store weights;
        const auto recording = model.record(weights);
        auto layout = model.layout(80);
        layout.layout.key = key.type;
        layout.layout.value = value.type;
        layout.layout.rotate_key = layout.layout.rotate_value = rotated;
        // A value between two codes may be rounded to the other one, where floats and doubles
        // differ: that is a step of the codes, for one of 24 or 40 values, seldom for two.
        const int bits = std::min(key.bits, value.bits);
        const double bound = bits == 4 ? 2e-2 : bits == 8 ? 2e-3 : bits == 16 ? 1e-3 : 2e-5;
        std::vector<test::reference_batch> batches = several_sequences();
        batches.push_back(test::plain_batch(70));
        std::vector<test::place> places = places_in_turn();
        places.push_back(test::cpu_place(2));
        for (const auto& place : places) {
          CAPTURE(place.name, key.name, value.name, rotated);
          test::runner device(recording, weights, place.open(exact), limits, layout);
          test::reference reference(recording, layout.layout);
          for (const auto& batch : batches) {
            const auto got = device.run(batch);
            reference.run(batch);
            REQUIRE(test::difference(got, reference.output()) < bound);
          }
        }
      }
    }
  }
}

// Tokens are dropped from a table of pages; what is left is attended to as if it had moved up.
TEST_CASE("tokens may be dropped from the middle of a sequence") {
  for (const auto& [name, model] : variants()) {
    for (const std::int32_t keep : {0, 3, 64, 70}) {
      for (const bool rotated : {false, true}) {
        CAPTURE(name, keep, rotated);
        test::weight_store weights;
        const auto recording = model.record(weights);
        auto layout = model.layout(256);
        layout.layout.rotate_key = layout.layout.rotate_value = rotated;
        test::runner cpu(recording, weights, options(2, exact), limits, layout);
        test::reference reference(recording);
        const auto check = [&](std::int32_t n, std::int32_t n_past) {
          const auto batch = test::plain_batch(n, n_past);
          const auto got = cpu.run(batch);
          reference.run(batch);
          REQUIRE(test::difference(got, reference.output()) <
                  (model.gate == nibble::gate_kind::gelu_tanh ? 2e-3 : 5e-5));
        };
        check(80, 0);
        check(80, 80);
        std::int32_t held = 160;
        for (const std::int32_t n : {5, 69}) {
          nibble::kv_table& table = *cpu.table(0);
          table.keep = keep;
          table.dropped += n;
          // what nobody may look at
          for (auto& group : table.groups) {
            for (std::int64_t p = nibble::pages_for(keep); p < (keep + table.dropped) / 64; ++p) {
              group.tail[static_cast<std::size_t>(p)] = nibble::no_page;
            }
          }
          reference.drop(0, keep, n);
          held -= n;
          check(1, held);
          check(7, held + 1);
          held += 8;
        }
      }
    }
  }
}

TEST_CASE("results do not depend on the number of threads nor on how a prompt is cut") {
  for (auto [name, model] : variants()) {
    for (const auto activations : {exact, int8}) {
      CAPTURE(name, activations == int8);
      const auto run = [&, &m = model](int threads, std::vector<std::int32_t> cuts) {
        test::weight_store weights;
        const auto recording = m.record(weights);
        test::runner cpu(recording, weights, options(threads, activations), limits,
                         m.layout(80, nibble::kv_type::f16));
        std::vector<float> all;
        std::int32_t n_past = 0;
        for (const std::int32_t n : cuts) {
          const auto logits = cpu.run(test::plain_batch(n, n_past));
          all.insert(all.end(), logits.begin(), logits.end());
          n_past += n;
        }
        return all;
      };
      const auto whole = run(1, {70});
      REQUIRE(whole.size() == 70u * static_cast<std::size_t>(model.n_vocab));
      REQUIRE(run(2, {70}) == whole);
      REQUIRE(run(3, {70}) == whole);
      REQUIRE(run(4, {65, 1, 1, 3}) == whole);
      for (const int threads : {1, 2, 3}) {
        REQUIRE(run(threads, std::vector<std::int32_t>(70, 1)) == whole);
      }
    }
  }
}

TEST_CASE("a token that sees several segments may share them out among threads") {
  test::small_model plain, window, sinks;
  plain.n_layer = window.n_layer = sinks.n_layer = 1;
  window.window = 600;
  sinks.sinks = true;
  for (const auto& model : {plain, window, sinks}) {
    const auto run = [&](int threads, std::int32_t max_context) {
      test::weight_store weights;
      const auto recording = model.record(weights);
      test::runner cpu(recording, weights, options(threads, exact), {600, 1, max_context},
                       model.layout(2600, nibble::kv_type::f16));
      std::vector<float> all;
      for (std::int32_t n_past = 0; n_past < 2404;) {
        const std::int32_t n = n_past < 2400 ? 600 : 1;
        auto batch = test::plain_batch(n, n_past);
        batch.outputs = {n - 1};
        const auto logits = cpu.run(batch);
        all.insert(all.end(), logits.begin(), logits.end());
        n_past += n;
      }
      return all;
    };
    const auto whole = run(1, 0);
    for (const int threads : {1, 2, 5}) REQUIRE(run(threads, 2600) == whole);
    REQUIRE(run(3, 2000) == whole);  // longer than foreseen
  }
}

TEST_CASE("one program runs batches of all shapes in turn") {
  test::small_model model;
  test::weight_store weights;
  const auto recording = model.record(weights);
  test::runner cpu(recording, weights, options(2, exact), limits, model.layout(80));
  test::reference reference(recording);
  for (const std::int32_t n : {3, 1, 1, 64, 1, 2, 1}) {
    static std::int32_t n_past = 0;
    const auto batch = test::plain_batch(n, n_past);
    n_past += n;
    const auto got = cpu.run(batch);
    reference.run(batch);
    REQUIRE(test::difference(got, reference.output()) < 2e-5);
  }
  auto silent = test::plain_batch(1);
  silent.outputs.clear();
  REQUIRE(cpu.run(silent).empty());
}

// Mixtures of experts that are known to equal something simpler.
#include <algorithm>

#include "tiny_logits.hpp"

namespace {

using nibble::activation_type;
using test::logits_of;

// The part of a tensor of experts that belongs to one of them.
std::span<float> part(test::tiny_tensor& t, std::size_t expert) {
  const std::size_t each = t.values.size() / t.shape.extent[2];
  return std::span(t.values).subspan(expert * each, each);
}

void turn(std::vector<float>& values, std::size_t by) {
  std::rotate(values.begin(), values.begin() + static_cast<std::ptrdiff_t>(by), values.end());
}

const std::pair<const char*, const char*> matrices[] = {
    {"ffn_gate_exps.weight", "ffn_gate.weight"},
    {"ffn_up_exps.weight", "ffn_up.weight"},
    {"ffn_down_exps.weight", "ffn_down.weight"}};

// A model without experts, but for the feed-forward halves like `routed`, whose experts' length is
// 32. Their matrices are those of one expert.
test::tiny_model dense_of(test::tiny_model& routed, std::size_t expert) {
  test::tiny_model dense("llama");
  dense.set("feed_forward_length", 32).make_tensors();
  for (auto& t : dense.tensors) {
    const bool both = std::any_of(routed.tensors.begin(), routed.tensors.end(),
                                  [&](const auto& other) { return other.name == t.name; });
    if (both) t.values = routed.tensor(t.name).values;
  }
  for (const std::string layer : {"blk.0.", "blk.1."}) {
    for (const auto& [experts, one] : matrices) {
      const auto from = part(routed.tensor(layer + experts), expert);
      dense.tensor(layer + one).values.assign(from.begin(), from.end());
    }
  }
  return dense;
}

test::tiny_model routed_model(int count, int used, nibble::format_id format = test::f32) {
  return test::tiny_model("llama").set_experts(count, used).make_tensors({.matrices = {format}});
}

template <typename F>
void for_each_kind(F&& f) {
  for (const auto type : {activation_type::float32, activation_type::int8}) {
    // one token is computed by other code than several
    for (const std::size_t count : {std::size_t{1}, test::tiny_text.size()}) {
      CAPTURE(type == activation_type::int8, count);
      f(type, count);
    }
  }
}

constexpr auto q8_0 = nibble::id_of<nibble::formats::q8_0>;

}  // namespace

TEST_CASE("one expert of one is the dense model") {
  for (const auto format : {test::f32, q8_0}) {
    auto routed = routed_model(1, 1, format);
    auto dense = dense_of(routed, 0);
    for (auto& t : dense.tensors) {
      if (!t.name.ends_with("norm.weight")) t.format = format;
    }
    for_each_kind([&](activation_type type, std::size_t count) {
      const auto expected = logits_of(dense, type, count);
      CHECK(test::relative_rms(logits_of(routed, type, count), expected) < 1e-6);
    });
  }
}

TEST_CASE("equal experts are the dense model, whichever and however many are chosen") {
  for (const int used : {1, 2, 4}) {
    auto routed = routed_model(4, used);
    for (const std::string layer : {"blk.0.", "blk.1."}) {
      for (const auto& [experts, one] : matrices) {
        auto& t = routed.tensor(layer + experts);
        const auto first = part(t, 0);
        for (std::size_t e = 1; e < 4; ++e) {
          std::copy(first.begin(), first.end(), part(t, e).begin());
        }
      }
    }
    const auto dense = dense_of(routed, 2);
    for_each_kind([&](activation_type type, std::size_t count) {
      CAPTURE(used);
      const auto expected = logits_of(dense, type, count);
      CHECK(test::relative_rms(logits_of(routed, type, count), expected) < 2e-6);
    });
  }
}

TEST_CASE("with equal router logits the first experts are chosen, with equal weights") {
  auto routed = routed_model(4, 1);
  for (const char* layer : {"blk.0.", "blk.1."}) {
    auto& router = routed.tensor(std::string(layer) + "ffn_gate_inp.weight");
    std::fill(router.values.begin(), router.values.end(), 0.0f);
  }
  const auto first = dense_of(routed, 0);
  for_each_kind([&](activation_type type, std::size_t count) {
    const auto expected = logits_of(first, type, count);
    CHECK(test::relative_rms(logits_of(routed, type, count), expected) < 1e-6);
  });

  // of two: the mean of both, so exchanging them changes rounding only; another expert, nothing
  routed.set("expert_used_count", 2);
  auto exchanged = routed, other = routed;
  for (const std::string layer : {"blk.0.", "blk.1."}) {
    for (const auto& [experts, one] : matrices) {
      auto& t = exchanged.tensor(layer + experts);
      const auto one_expert = part(t, 0);
      std::swap_ranges(one_expert.begin(), one_expert.end(), part(t, 1).begin());
      for (float& v : part(other.tensor(layer + experts), 2)) v = 100;
    }
  }
  for_each_kind([&](activation_type type, std::size_t count) {
    const auto expected = logits_of(routed, type, count);
    CHECK(logits_of(other, type, count) == expected);
    CHECK(test::relative_rms(logits_of(exchanged, type, count), expected) < 2e-6);
    CHECK(test::relative_rms(logits_of(first, type, count), expected) > 1e-2);
  });
}

TEST_CASE("when all experts are used, their order does not matter") {
  auto routed = routed_model(4, 4);
  auto turned = routed;
  for (const std::string layer : {"blk.0.", "blk.1."}) {
    for (const auto& [experts, one] : matrices) {
      auto& t = turned.tensor(layer + experts);
      turn(t.values, part(t, 0).size());
    }
    auto& router = turned.tensor(layer + "ffn_gate_inp.weight");
    turn(router.values, 32);
  }
  for_each_kind([&](activation_type type, std::size_t count) {
    const auto expected = logits_of(routed, type, count);
    CHECK(test::relative_rms(logits_of(turned, type, count), expected) < 2e-6);
  });
}

TEST_CASE("an expert that the router never chooses does not matter, not even if it is no number") {
  for (const char* architecture : {"llama", "qwen3moe", "gpt-oss"}) {
    auto model = test::tiny_model(architecture).set_experts(4, 2).make_tensors();
    const bool biased = std::string_view(architecture) == "gpt-oss";
    for (const std::string layer : {"blk.0.", "blk.1."}) {
      auto& router = model.tensor(layer + "ffn_gate_inp.weight").values;
      if (biased) {
        model.tensor(layer + "ffn_gate_inp.bias").values[3] = -100;
        continue;
      }
      // logits x, 0, -x, 0: two of the first three are never less, and a tie goes to the lower
      // index
      for (std::size_t c = 0; c < 32; ++c) {
        router[32 + c] = 0;
        router[64 + c] = -router[c];
        router[96 + c] = 0;
      }
    }
    auto broken = model;
    for (const std::string layer : {"blk.0.", "blk.1."}) {
      for (const auto& [experts, one] : matrices) {
        for (float& v : part(broken.tensor(layer + experts), 3)) v = std::nanf("");
      }
    }
    for_each_kind([&](activation_type type, std::size_t count) {
      CAPTURE(architecture);
      CHECK(logits_of(broken, type, count) == logits_of(model, type, count));
    });
  }
}

// A factor beside a matrix, as bitnet's files have. tests/device has the step that multiplies by
// it.
#include "tiny_logits.hpp"

namespace {

using nibble::activation_type;
using test::logits_of;

}  // namespace

TEST_CASE("a bitnet model with factors equals one whose matrices were multiplied by them") {
  // The sub-norms hide factors of values and of up-projections but for epsilon: here it is large.
  for (const float epsilon : {1e-5f, 0.5f}) {
    auto with = test::tiny_model("bitnet")
                    .set("attention.layer_norm_rms_epsilon", epsilon)
                    .make_tensors({.optional = true});
    auto multiplied = with, without = with;
    int factors = 0;
    for (const auto& t : with.tensors) {
      if (!t.name.ends_with(".scale")) continue;
      ++factors;
      const std::string matrix = t.name.substr(0, t.name.size() - 5) + "weight";
      const float factor = 0.25f + 0.125f * static_cast<float>(factors);
      with.tensor(t.name).values[0] = factor;
      for (float& v : multiplied.tensor(matrix).values) v *= factor;
      multiplied.remove(t.name);
      without.remove(t.name);
    }
    CHECK(factors == 14);  // seven in each of two layers
    const auto expected = logits_of(multiplied, activation_type::float32);
    CHECK(test::relative_rms(logits_of(with, activation_type::float32), expected) < 2e-6);
    CHECK(test::relative_rms(logits_of(without, activation_type::float32), expected) > 1e-2);
    CHECK(test::relative_rms(logits_of(with, activation_type::int8), expected) < 0.05);
  }
}

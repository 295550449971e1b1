#include "model/rope.hpp"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace nibble::inline NIBBLE_ABI {
namespace {

// The dimension whose rotation makes `turns` full turns over the original context; YaRN, equation
// 17 of Peng et al. 2023, arXiv:2309.00071.
double turning_dimension(double turns, double n_rot, double base, double context) {
  return n_rot * std::log(context / (turns * 2 * std::numbers::pi)) / (2 * std::log(base));
}

// How far pair i is interpolated: 0 where it turns often, 1 where it never completes a turn.
double yarn_interpolation(double pair, const rope_scaling& rope, double n_rot, double base) {
  const double low = std::max(
      0.0, std::floor(turning_dimension(rope.beta_fast, n_rot, base, rope.original_context)));
  const double high = std::min(
      n_rot - 1, std::ceil(turning_dimension(rope.beta_slow, n_rot, base, rope.original_context)));
  return std::clamp((pair - low) / std::max(0.001, high - low), 0.0, 1.0);
}

// YaRN's attention factor, equation 22, with the multiplier that DeepSeek's variant adds.
double yarn_magnitude(const rope_scaling& rope) {
  const auto growth = [&](double multiplier) {
    return rope.factor <= 1 ? 1.0 : 0.1 * multiplier * std::log(rope.factor) + 1.0;
  };
  return rope.log_multiplier == 0 ? growth(1) : growth(1) / growth(rope.log_multiplier);
}

}  // namespace

rope_spec make_rope(rope_style style, const hparams& hp, const layer_hparams& layer,
                    const std::vector<float>& factors) {
  rope_spec out;
  out.style = style;
  if (style == rope_style::none) return out;
  const rope_scaling& rope = hp.rope;
  const bool scaled = layer.rope_scaled && rope.kind != rope_scaling_kind::none;
  const bool yarn = scaled && rope.kind == rope_scaling_kind::yarn;
  for (std::int32_t pair = 0; pair < hp.n_rot / 2; ++pair) {
    double frequency = std::pow(layer.rope_base, -2.0 * pair / hp.n_rot);
    if (!factors.empty()) frequency /= factors[static_cast<std::size_t>(pair)];
    if (scaled) {
      const double mix = yarn ? yarn_interpolation(pair, rope, hp.n_rot, layer.rope_base) : 1.0;
      frequency *= mix / rope.factor + (1 - mix);
    }
    out.frequencies.push_back(frequency);
  }
  out.magnitude = static_cast<float>(rope.attention_factor * (yarn ? yarn_magnitude(rope) : 1.0));
  return out;
}

}  // namespace nibble::inline NIBBLE_ABI

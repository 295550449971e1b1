// Running models in tests and comparing what comes out.
#pragma once

#include <cmath>
#include <nibble/nibble.hpp>
#include <span>
#include <vector>

#include "catch.hpp"

namespace test {

// What references are compared with: no rounding in the KV cache.
inline nibble::model_options exact_options(nibble::activation_type activations,
                                           std::int32_t threads) {
  nibble::model_options options;
  options.cpu.activations = activations;
  options.cpu.threads = threads;
  options.plan.key = options.plan.value = nibble::kv_type::f32;
  return options;
}

// The logits of every position, [tokens, n_vocab].
inline std::vector<float> all_logits(const nibble::model& model,
                                     std::span<const nibble::token> tokens) {
  std::vector<float> all;
  nibble::session session(model);
  session.append(tokens, [&](std::size_t first, std::span<const float> logits) {
    REQUIRE(first * static_cast<std::size_t>(model.hparams().n_vocab) == all.size());
    all.insert(all.end(), logits.begin(), logits.end());
  });
  return all;
}

// sqrt(sum (a - b)^2 / sum b^2); not a number if either holds one that is none.
inline double relative_rms(std::span<const float> found, std::span<const float> reference) {
  REQUIRE(found.size() == reference.size());
  double difference = 0, size = 0;
  for (std::size_t i = 0; i < found.size(); ++i) {
    const double d = static_cast<double>(found[i]) - reference[i];
    difference += d * d;
    size += static_cast<double>(reference[i]) * reference[i];
  }
  return std::sqrt(difference / size);
}

}  // namespace test

// Runs a tiny model.
#pragma once

#include "run_model.hpp"
#include "tiny_model.hpp"

namespace test {

inline const std::vector<nibble::token> tiny_text = {3, 1, 47, 1, 0, 9, 2, 6};

// The logits of the first `count` tokens of tiny_text, [count, n_vocab].
inline std::vector<float> logits_of(const tiny_model& model, nibble::activation_type type,
                                    std::size_t count = tiny_text.size()) {
  const auto bytes = model.bytes();
  auto options = exact_options(type, 2);
  options.plan.context = 8;
  options.plan.all_logits = true;
  const nibble::model loaded(nibble::gguf::file(bytes, "tiny.gguf"), options);
  return all_logits(loaded, std::span(tiny_text).first(count));
}

}  // namespace test

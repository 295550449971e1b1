// The model whose saved sessions are fuzzed: small files, layers with and without a window.
#pragma once

#include <model/tiny_model.hpp>
#include <nibble/nibble.hpp>
#include <numeric>
#include <vector>

namespace test {

inline nibble::model session_model() {
  tiny_model tiny("gpt-oss");
  tiny.set("attention.sliding_window", 70).set("context_length", 256);
  const auto bytes = tiny.make_tensors().bytes();
  nibble::model_options options;
  options.cpu.threads = 1;
  options.plan.context = 200;
  options.plan.batch = 64;
  options.plan.sessions = 2;
  options.plan.key = nibble::kv_type::q4;
  options.plan.value = nibble::kv_type::q8;
  return nibble::model(nibble::gguf::file(bytes, "tiny.gguf"), options);
}

inline std::vector<nibble::token> session_tokens(std::size_t count) {
  std::vector<nibble::token> tokens(count);
  for (std::size_t i = 0; i < count; ++i) tokens[i] = static_cast<nibble::token>(i * i % 47);
  return tokens;
}

}  // namespace test

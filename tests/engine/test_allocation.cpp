// A token costs no allocation, neither computing it nor choosing it.

#include "allocations.hpp"
#include "engine_test.hpp"

namespace {

using nibble::sampling_options;
using nibble::token;

// Every stage acts.
sampling_options everything() {
  return {.temperature = 1.2f,
          .top_k = 1000,
          .top_p = 0.99f,
          .min_p = 0.001f,
          .seed = 1,
          .typical = 0.99f,
          .top_n_sigma = 3,
          .repeat_penalty = 1.1f,
          .dry_multiplier = 0.8f,
          .dry_allowed_length = 1,
          .xtc_probability = 0.5f,
          .dynatemp_range = 0.5f,
          .logit_bias = {{5, 1.0f}}};
}

// In a text as long as one that the session has written before.
std::size_t allocations_of_tokens(const sampling_options& options) {
  nibble::model_options loading;
  loading.cpu.threads = 1;
  const nibble::model model(nibble::gguf::file(test::tales), loading);
  nibble::session session(model, options);
  const auto prompt = model.tokenizer().encode("The cat sat on the mat. The cat sat");
  for (int text = 0; text < 2; ++text) {
    session.truncate(0);
    session.append(prompt);
    test::allocations = 0;
    for (int i = 0; i < 60; ++i) {
      const token id = session.sample();
      session.append({&id, 1});
    }
  }
  return test::allocations;
}

}  // namespace

TEST_CASE("a token allocates nothing once the session is warm") {
  auto mirostat = everything();
  mirostat.mirostat = 2;
  auto all_tokens = everything();
  all_tokens.top_k = 0;
  const sampling_options cases[] = {
      {.temperature = 0}, {.seed = 1}, everything(), mirostat, all_tokens};
  for (const sampling_options& options : cases) {
    INFO("temperature " << options.temperature << ", top_k " << options.top_k << ", mirostat "
                        << options.mirostat);
    CHECK(allocations_of_tokens(options) == 0);
  }
}

// Logits against those of other programs: shared/models/README.md tells how they came about and how
// far ours may be from them.

#include <algorithm>
#include <array>

#include "engine_test.hpp"

namespace {

using nibble::activation_type;

struct golden_case {
  std::filesystem::path model, tokens, logits;
  std::string name() const { return tokens.stem().string(); }
};

// Threads and batch sizes decide who computes what and when, never the result.
void check_case(const golden_case& c, activation_type activations, double tolerance) {
  const auto tokens = test::read_tokens(c.tokens);
  const auto reference = test::read_floats(c.logits);
  const nibble::gguf::file file(c.model);
  std::vector<float> first;
  for (const int threads : {1, 2}) {
    for (const int batch : {512, 7}) {
      auto options = test::exact_options(activations, threads);
      options.plan.batch = batch;
      options.plan.all_logits = true;
      options.plan.context = static_cast<std::int32_t>(tokens.size());
      const auto logits = test::all_logits(nibble::model(file, options), tokens);
      INFO(c.name() << ", " << (activations == activation_type::int8 ? "int8" : "float")
                    << " activations, " << threads << " threads, batch " << batch);
      CHECK(test::relative_rms(logits, reference) <= tolerance);
      if (first.empty()) first = logits;
      CHECK(std::equal(first.begin(), first.end(), logits.begin(), logits.end()));
    }
  }
}

std::vector<golden_case> trained_cases() {
  const auto folder = test::data("golden/trained");
  const auto models = test::data("models");
  std::vector<golden_case> cases;
  if (!folder || !models) return cases;
  for (const auto& entry : std::filesystem::directory_iterator(*folder)) {
    if (entry.path().extension() != ".tokens") continue;
    auto logits = entry.path();
    logits.replace_extension(".logits");
    cases.push_back(
        {*models / (entry.path().stem().string() + ".gguf"), entry.path(), std::move(logits)});
  }
  CHECK(cases.size() >= 24);  // as many as there were when this test was written
  std::sort(cases.begin(), cases.end(),
            [](const auto& a, const auto& b) { return a.tokens < b.tokens; });
  return cases;
}

}  // namespace

TEST_CASE("logits of trained models with float activations are the reference's") {
  for (const golden_case& c : trained_cases()) {
    const bool exact = c.name().ends_with("f32");
    check_case(c, activation_type::float32, exact ? 1e-5 : 1e-4);
  }
}

TEST_CASE("logits of trained models with int8 activations are as close as llama.cpp's") {
  const auto cases = trained_cases();
  if (cases.empty()) return;
  const auto distances = test::read_json(*test::data("golden/trained/llama_cpp_distance.json"));
  for (const golden_case& c : cases) {
    check_case(c, activation_type::int8, distances.at(c.name()).get<double>() * 1.1);
  }
}

TEST_CASE("logits of every architecture are llama.cpp's") {
  constexpr std::array names = {"llama-dense", "llama-moe",    "mistral3-dense", "qwen2-dense",
                                "qwen3-dense", "qwen3moe-moe", "gemma3-dense",   "gpt-oss-moe"};
  const auto folder = test::data("golden/archs");
  if (!folder) return;
  for (const std::string name : names) {
    check_case(
        {*folder / (name + ".gguf"), *folder / (name + ".tokens"), *folder / (name + ".logits")},
        activation_type::float32, 1e-4);
  }
}

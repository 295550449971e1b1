// Logits against those of other programs: shared/models/README.md tells how they came about and how
// far ours may be from them.

#include <algorithm>
#include <array>

#include "engine_test.hpp"
#include "places.hpp"

namespace {

using nibble::activation_type;

struct golden_case {
  std::filesystem::path model, tokens, logits;
  std::string name() const { return tokens.stem().string(); }
};

// On GPUs, emulated: other sums of the same numbers. All tokens at once, and some of them in
// batches that kernels for few tokens take.
void check_on_gpus(const golden_case& c, activation_type activations, double tolerance) {
  const auto tokens = test::read_tokens(c.tokens);
  const auto reference = test::read_floats(c.logits);
  const std::size_t n_vocab = reference.size() / tokens.size();
  const nibble::gguf::file file(c.model);
  const auto check = [&](const test::place& place, std::int32_t batch, std::size_t n) {
    auto options = test::exact_options(activations, 1);
    options.plan.batch = batch;
    options.plan.all_logits = true;
    options.plan.context = static_cast<std::int32_t>(tokens.size());
    const nibble::model model(file, place.open(activations), options);
    INFO(c.name() << ", " << (activations == activation_type::int8 ? "int8" : "float")
                  << " activations, " << place.name << ", batch " << batch);
    const auto logits = test::all_logits(model, std::span(tokens).first(n));
    CHECK(test::relative_rms(logits, std::span(reference).first(n * n_vocab)) <= tolerance);
  };
  const auto places = test::emulated_places();
  if (places.empty()) return;
  static std::size_t turn = 0;
  const test::place& next = places[turn++ % places.size()];
  for (const auto& place : places) {
    // the larger models, which take seconds each, do without one of them in turn
    if (&place != &next || std::filesystem::file_size(c.model) < (1 << 20)) {
      check(place, 512, tokens.size());
    }
  }
  if (activations == activation_type::float32) {
    check(next, 7, std::min<std::size_t>(tokens.size(), 15));
  } else if (std::filesystem::file_size(c.model) < (1 << 20)) {
    check(next, 7, tokens.size());  // the bound is one for all tokens together
  }
}

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
    const double tolerance = c.name().ends_with("f32") ? 1e-5 : 1e-4;
    check_case(c, activation_type::float32, tolerance);
    check_on_gpus(c, activation_type::float32, tolerance);
  }
}

TEST_CASE("logits of trained models with int8 activations are as close as llama.cpp's") {
  const auto cases = trained_cases();
  if (cases.empty()) return;
  const auto distances = test::read_json(*test::data("golden/trained/llama_cpp_distance.json"));
  for (const golden_case& c : cases) {
    const double tolerance = distances.at(c.name()).get<double>() * 1.1;
    check_case(c, activation_type::int8, tolerance);
    check_on_gpus(c, activation_type::int8, tolerance);
  }
}

TEST_CASE("logits of every architecture are llama.cpp's") {
  constexpr std::array names = {"llama-dense", "llama-moe",    "mistral3-dense", "qwen2-dense",
                                "qwen3-dense", "qwen3moe-moe", "gemma3-dense",   "gpt-oss-moe"};
  const auto folder = test::data("golden/archs");
  if (!folder) return;
  for (const std::string name : names) {
    const golden_case c{*folder / (name + ".gguf"), *folder / (name + ".tokens"),
                        *folder / (name + ".logits")};
    check_case(c, activation_type::float32, 1e-4);
    check_on_gpus(c, activation_type::float32, 1e-4);
  }
}

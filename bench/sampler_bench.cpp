// What choosing a token costs: whole chains of stages over a vocabulary of 150,000.
//
//   nibble-microbench --benchmark_filter=sampler
//
// One thread. The logits are those of a made-up language model, with a new seed for the draw each
// time: Gaussian noise for most tokens and a head that falls off as words do (Zipf). `flat` logits
// are nearly equal, the most work there can be: no stage can tell early which tokens will go.
#include <benchmark/benchmark.h>

#include <cmath>
#include <cstdint>
#include <nibble/engine/sampler.hpp>
#include <random>
#include <string>
#include <vector>

namespace {

constexpr std::size_t n_vocab = 150'000;

enum class logit_kind { peaked, flat };

std::vector<float> make_logits(logit_kind kind) {
  std::mt19937 random(1);
  std::normal_distribution<float> normal(0, kind == logit_kind::flat ? 0.1f : 2.0f);
  std::vector<float> logits(n_vocab);
  for (float& x : logits) x = normal(random);
  if (kind == logit_kind::flat) return logits;
  for (int rank = 1; rank <= 2000; ++rank) {
    logits[random() % n_vocab] =
        18 - 1.2f * std::log(static_cast<float>(rank)) + normal(random) / 4;
  }
  return logits;
}

// Words that come again as in a text.
std::vector<nibble::token> make_history(std::size_t count) {
  std::mt19937 random(2);
  std::vector<nibble::token> history(count);
  for (auto& id : history) {
    id = static_cast<nibble::token>((n_vocab - 1) >> (random() % 18));
  }
  return history;
}

nibble::sampling_options none() {
  nibble::sampling_options o;
  o.temperature = 1;
  o.top_k = 0;
  o.top_p = 1;
  o.min_p = 0;
  o.seed = 1;
  return o;
}

nibble::sampling_options usual() {
  nibble::sampling_options o;
  o.seed = 1;
  o.repeat_penalty = 1.1f;
  o.presence_penalty = 0.1f;
  o.frequency_penalty = 0.1f;
  return o;
}

using options = nibble::sampling_options;

void run(benchmark::State& state, logit_kind kind, const options& o,
         const std::vector<nibble::token>& history) {
  const auto logits = make_logits(kind);
  nibble::sampler sampler(o);
  for (auto _ : state) benchmark::DoNotOptimize(sampler.sample(logits, history));
}

template <typename Change>
void add(const char* name, logit_kind kind, options o, const Change& change,
         std::vector<nibble::token> history = make_history(4096)) {
  change(o);
  const std::string kind_name = kind == logit_kind::flat ? "/flat" : "/peaked";
  benchmark::RegisterBenchmark(("sampler/" + std::string(name) + kind_name).c_str(),
                               [=](benchmark::State& state) { run(state, kind, o, history); })
      ->Unit(benchmark::kMicrosecond);
}

const bool added = [] {
  const auto nothing = [](options&) {};
  for (const logit_kind kind : {logit_kind::peaked, logit_kind::flat}) {
    add("usual chain", kind, usual(), nothing);
    add("usual chain without top_k", kind, usual(), [](options& o) { o.top_k = 0; });
    add("greedy", kind, none(), [](options& o) { o.temperature = 0; });
    add("draw", kind, none(), nothing);
    add("top_k", kind, none(), [](options& o) { o.top_k = 40; });
    add("top_p", kind, none(), [](options& o) { o.top_p = 0.95f; });
    add("min_p", kind, none(), [](options& o) { o.min_p = 0.05f; });
    add("typical", kind, none(), [](options& o) { o.typical = 0.95f; });
    add("top_n_sigma", kind, none(), [](options& o) { o.top_n_sigma = 1; });
    add("xtc", kind, none(), [](options& o) { o.xtc_probability = 1; });
    add("dynatemp", kind, none(), [](options& o) { o.dynatemp_range = 0.5f; });
    add("mirostat", kind, none(), [](options& o) { o.mirostat = 2; });
  }
  const auto dry = [](options& o) {
    o.dry_multiplier = 0.8f;
    o.dry_sequence_breakers.clear();
  };
  add("dry, 65536 tokens", logit_kind::peaked, usual(), dry, make_history(1 << 16));
  add("dry, 65536 equal tokens", logit_kind::peaked, usual(), dry,
      std::vector<nibble::token>(1 << 16, 7));
  return true;
}();

}  // namespace

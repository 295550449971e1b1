// How far a prompt is, as a session tells.
#include <nibble/device/sizes.hpp>
#include <nibble/nibble.hpp>

#include "../model/tiny_model.hpp"
#include "catch.hpp"
#include "places.hpp"
#include "run_model.hpp"

namespace {

std::vector<nibble::token> prompt(std::size_t n) {
  std::vector<nibble::token> all(n);
  for (std::size_t i = 0; i < n; ++i) all[i] = static_cast<nibble::token>(i * 7 % 48);
  return all;
}

// In two segments: the last block by itself.
nibble::model load(bool split) {
  const auto bytes = test::tiny_model("llama").set("context_length", 128).make_tensors().bytes();
  const nibble::gguf::file file(bytes, "tiny");
  auto options = test::exact_options(nibble::activation_type::int8, 1);
  options.plan.batch = 16;
  options.plan.all_logits = true;
  const nibble::model_definition definition(file);
  std::vector<std::unique_ptr<nibble::backend>> devices;
  std::vector<const nibble::device_sizes*> sizes;
  for (int i = 0; i < (split ? 2 : 1); ++i) {
    devices.push_back(nibble::make_cpu_backend(options.cpu));
    sizes.push_back(devices.back().get());
  }
  std::vector<std::int32_t> device_of(definition.blocks.size(), 0);
  if (split) device_of.back() = 1;
  const auto plan = nibble::count_placement(definition, sizes, device_of, options.plan);
  return nibble::model(file, std::move(devices), plan, options);
}

}  // namespace

TEST_CASE("a session tells how far a prompt is") {
  for (const bool split : {false, true}) {
    const auto model = load(split);
    for (const bool all_logits : {false, true}) {
      std::vector<double> told;
      nibble::session session(model, {},
                              {.progress = [&](double share) { told.push_back(share); }});
      const auto tokens = prompt(40);
      if (all_logits) {
        session.append(tokens, [](std::size_t, std::span<const float>) {});
      } else {
        session.append(tokens);
      }
      REQUIRE(told.size() >= (split ? 6 : 4));  // 3 batches, in 2 steps and more
      CHECK(told.front() == 0);
      CHECK(told.back() == 1);
      CHECK(std::is_sorted(told.begin(), told.end()));
      told.clear();
      session.append(prompt(1));
      CHECK(told.empty());
    }
  }
}

TEST_CASE("progress may throw: the session keeps what was computed, and goes on") {
  const auto model = load(true);
  const auto tokens = prompt(40);
  nibble::session reference(model);
  const auto logits = reference.append(tokens);
  const std::vector<float> expected(logits.begin(), logits.end());
  for (const double limit : {0.0, 0.1, 0.5, 0.99}) {
    INFO(limit);
    bool throws = true;
    nibble::session session(model, {}, {.progress = [&](double share) {
                              if (throws && share >= limit) throw std::runtime_error("enough");
                            }});
    CHECK_THROWS_AS(session.append(tokens), std::runtime_error);
    throws = false;
    const auto held = session.tokens().size();
    CHECK(held % 16 == (limit > 0.9 ? 8 : 0));
    if (held == tokens.size()) session.truncate(static_cast<std::int32_t>(held) - 1);
    const auto found = session.append(std::span(tokens).subspan(session.tokens().size()));
    CHECK(std::vector<float>(found.begin(), found.end()) == expected);
  }
}

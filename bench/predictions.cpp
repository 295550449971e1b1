// How well plans predict: a model on the CPU and a device of known speed, at many placements, with
// the time of a token that was predicted and the one that was measured. For dense models.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <iostream>
#include <nibble/device/sizes.hpp>
#include <nibble/nibble.hpp>
#include <random>
#include <set>

#include "throttled_backend.hpp"

namespace {

struct settings {
  std::string path;
  int placements = 20, depth = 128, tokens = 24;
  double bandwidth = 4;
  std::uint32_t seed = 1;
};

using part = nibble::pinned_blocks::part;

// Where blocks are to lie; devices: the CPU, the other one.
struct wish {
  std::string name;
  std::vector<nibble::pinned_blocks> pins;
};

wish random_wish(std::minstd_rand& random, std::int32_t n_layer, int i) {
  const auto layers = static_cast<std::int32_t>(random() % static_cast<unsigned>(n_layer + 1));
  const std::int32_t ends = static_cast<std::int32_t>(random() >> 8) & 1;
  wish w;
  w.pins = {{.what = part::all, .device = 0},
            {.what = part::embedding, .device = 0},
            {.what = part::head, .device = ends}};
  if (i == 0) {
    w.name = "all on the CPU";
    w.pins.back().device = 0;
  } else if (i == 1) {
    w.name = "all on the other";
    for (auto& pin : w.pins) pin.device = 1;
  } else if (i % 2 == 0) {
    w.name = nibble::concat("first ", layers, " layers on the other, head on ", ends);
    w.pins.push_back({.what = part::all, .first = 0, .last = layers, .device = 1});
  } else {
    w.name = nibble::concat("feed-forward of ", layers, " layers on the other, head on ", ends);
    w.pins.push_back({.what = part::feed_forward, .first = 0, .last = layers, .device = 1});
  }
  return w;
}

double median(std::vector<double> values) {
  std::nth_element(values.begin(), values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2),
                   values.end());
  return values[values.size() / 2];
}

double seconds_of_token(const nibble::model& model, const settings& s) {
  nibble::session session(model);
  std::vector<nibble::token> tokens(static_cast<std::size_t>(s.depth), 1);
  for (std::size_t i = 0; i < tokens.size(); ++i) tokens[i] = static_cast<nibble::token>(i % 97);
  session.append(tokens);
  std::vector<double> seconds;
  for (int i = 0; i < s.tokens; ++i) {
    const auto start = std::chrono::steady_clock::now();
    session.append(std::span(tokens).first(1));
    seconds.push_back(
        std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  return median(seconds);
}

nibble::device_speed speed_of_cpu(const nibble::model_definition& model) {
  std::set<nibble::format_id> formats;
  for (const auto& need : model.needs) {
    if (need.found && !need.as_float) formats.insert(need.found->view.format);
  }
  nibble::speed_plan plan;
  plan.formats.assign(formats.begin(), formats.end());
  return nibble::measure_speed(*nibble::make_cpu_backend(), plan);
}

int run(const settings& s) {
  const nibble::gguf::file file(s.path);
  const nibble::model_definition definition(file);
  const bench::injected_speed injected{.bytes_per_second = s.bandwidth * 1e9};
  std::minstd_rand random(s.seed);
  std::vector<double> off;
  std::printf("%-52s %12s %12s %8s\n", "placement", "predicted ms", "measured ms", "ratio");
  for (int i = 0; i < s.placements; ++i) {
    const wish w = random_wish(random, definition.hp.n_layer, i);
    std::vector<std::unique_ptr<nibble::backend>> devices;
    devices.push_back(nibble::make_cpu_backend());
    devices.push_back(
        std::make_unique<bench::throttled_backend>(nibble::make_cpu_backend(), injected));
    nibble::plan_options options;
    options.context = s.depth + s.tokens;
    options.pins = w.pins;
    options.prompt_tokens = s.depth;
    options.generated_tokens = s.tokens;
    // the machine's speed before and after: others may be at work on it
    const auto sizes = nibble::make_cpu_sizes();
    const auto planned = [&] {
      const nibble::offered_device offers[] = {
          {.sizes = sizes.get(), .speed = speed_of_cpu(definition)},
          {.sizes = sizes.get(), .speed = bench::told(injected)}};
      return nibble::plan(definition, offers, options);
    };
    const nibble::placement plan = planned();
    const nibble::model model(file, std::move(devices), plan);
    const double measured = seconds_of_token(model, s);
    const double predicted =
        (1 / plan.predicted.generation + 1 / planned().predicted.generation) / 2;
    const double ratio = predicted / measured;
    off.push_back(std::abs(ratio - 1));
    std::printf("%-52s %12.2f %12.2f %8.3f\n", w.name.c_str(), 1e3 * predicted, 1e3 * measured,
                ratio);
    std::fflush(stdout);
  }
  const auto within =
      std::count_if(off.begin(), off.end(), [](double difference) { return difference <= 0.15; });
  std::printf("%d of %zu within 15 %%, the middle one off by %.1f %%\n", static_cast<int>(within),
              off.size(), 100 * median(off));
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{
      "Compares the time of a token that plans predict with the measured one, for placements of a "
      "model between the CPU and a device that is slowed down to a known speed."};
  settings s;
  app.add_option("model", s.path, "GGUF file of a dense model")->required();
  app.add_option("--placements", s.placements, "how many are tried")
      ->capture_default_str()
      ->check(CLI::Range(1, 1000));
  app.add_option("--bandwidth", s.bandwidth, "of the slow device, GB/s; less than the CPU has")
      ->capture_default_str()
      ->check(CLI::Range(0.01, 1000.0));
  app.add_option("--depth", s.depth, "tokens before those that are timed")
      ->capture_default_str()
      ->check(CLI::Range(1, 100000));
  app.add_option("-n,--tokens", s.tokens, "tokens that are timed")
      ->capture_default_str()
      ->check(CLI::Range(1, 100000));
  app.add_option("--seed", s.seed, "of the placements")->capture_default_str();
  CLI11_PARSE(app, argc, argv);
  try {
    return run(s);
  } catch (const std::exception& e) {
    std::cerr << "error: " << e.what() << '\n';
    return 1;
  }
}

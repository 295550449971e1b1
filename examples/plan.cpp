// Says where each part of a model would run, what it takes and how fast it is expected to be, on
// this machine's devices or on others that are described. The model is not loaded: its header is
// enough.
#include <iostream>
#include <nibble/device/sizes.hpp>
#include <nibble/device/speed.hpp>
#include <nibble/nibble.hpp>
#include <optional>
#include <string>
#include <vector>

#include "common.hpp"
#include "output.hpp"
#include "plan_devices.hpp"
#include "plan_output.hpp"

namespace {

struct settings {
  std::string path, json, svg;
  std::vector<std::string> devices, pins;
  std::string context = "0";
  common::placement_options placement;
  bool measure = false;
  nibble::plan_options plan;
};

void add_options(CLI::App& app, settings& s) {
  app.add_option("model", s.path, "GGUF file (any part of a split one); data may be absent")
      ->required();
  app.add_option("--device", s.devices, plan_devices::help())
      ->delimiter(',')
      ->check(common::not_empty);
  app.add_flag("--measure", s.measure,
               "measure the speed of this machine's devices first, if that was not done before");
  app.add_option("-c,--context", s.context,
                 "tokens of context (0: up to 4096), or max: the most that fits on the GPUs")
      ->capture_default_str()
      ->check(plan_devices::is_context);
  app.add_option_function<std::string>(
      "--kv", [&s](const std::string& text) { common::parse_kv("--kv", text, s.plan); },
      "types of keys and values, one for both or K,V: " + common::kv_type_names() +
          " (default: f16)");
  app.add_option("--sessions", s.plan.sessions, "sessions with full contexts")
      ->capture_default_str()
      ->check(CLI::Range(1, 256));
  app.add_option("-b,--batch", s.plan.batch, "prompt tokens that are computed together")
      ->capture_default_str()
      ->check(CLI::Range(1, common::most_batch));
  s.placement.add_to(app);
  app.add_option("--pin", s.pins,
                 "blocks that are to lie on a device, by its place among the devices: 0-15=0, "
                 "attention:0-31=0, ffn:16-31=1, embedding=2, head=0 (repeatable)")
      ->check(plan_devices::is_pin);
  app.add_option("--prompt-tokens", s.plan.prompt_tokens, "of a usual request")
      ->capture_default_str()
      ->check(CLI::Range(0, 1 << 28));
  app.add_option("--generated-tokens", s.plan.generated_tokens, "of a usual request")
      ->capture_default_str()
      ->check(CLI::Range(0, 1 << 28));
  common::add_json(app, s.json, "also write the plan to this file as JSON");
  app.add_option("--svg", s.svg, "also draw the placement into this file")
      ->check(common::is_separate_output);
}

void complete(settings& s) {
  if (s.context == "max") {
    s.plan.longest_context = true;
  } else {
    s.plan.context = std::stoi(s.context);
  }
  s.placement.apply(s.plan);
  for (const std::string& pin : s.pins) s.plan.pins.push_back(plan_devices::pin_of(pin));
}

// As loading does: what fits into no memory stays on disk.
nibble::placement make_plan(const nibble::model_definition& model, plan_devices::devices& devices,
                            const settings& s) {
  const bool may_stream = s.devices.empty() && s.plan.on_shortage != nibble::shortage::fail;
  try {
    return nibble::plan(model, devices.offers(), s.plan);
  } catch (const nibble::error& e) {
    if (e.code() != nibble::errc::out_of_memory || !may_stream) throw;
  }
  devices.add_disk();
  return nibble::plan(model, devices.offers(), s.plan);
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{
      "Says where each part of a model would run, what that takes, and how fast it is expected to "
      "be. The model is not loaded."};
  settings s;
  add_options(app, s);
  if (const auto status = common::parse(app, argc, argv)) return *status;
  return common::run([&] {
    complete(s);
    std::optional<common::output> json, svg;
    if (!s.json.empty()) json.emplace(s.json, std::vector<std::filesystem::path>{s.path});
    if (!s.svg.empty()) svg.emplace(s.svg, std::vector<std::filesystem::path>{s.path});
    const nibble::gguf::file file(s.path, {.header_only = true});
    const nibble::model_definition model(file);
    plan_devices::devices devices(s.devices, model, s.measure);
    const nibble::placement plan = make_plan(model, devices, s);
    std::cout << plan;
    for (const std::string& note : devices.notes()) std::cout << "- " << note << '\n';
    if (json) {
      json->stream() << plan_output::to_json(plan);
      json->finish();
    }
    if (svg) {
      svg->stream() << plan_output::to_svg(plan, file.name());
      svg->finish();
    }
  });
}

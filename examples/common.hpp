// What several programs share: reading options for models, saying what failed.
#pragma once

#include <CLI/CLI.hpp>
#include <exception>
#include <iostream>
#include <map>
#include <nibble/nibble.hpp>
#include <string>

namespace common {

// How a model is loaded, as options of a command line.
struct load_options {
  std::string path;
  nibble::model_options model;

  void add_to(CLI::App& app) {
    app.add_option("model", path, "GGUF file (any part of a split one)")->required();
    app.add_option("-t,--threads", model.cpu.threads, "threads (0: the physical cores)");
    app.add_option("-b,--batch", model.plan.batch, "prompt tokens that are computed together")
        ->capture_default_str();
    app.add_option("-c,--context", model.plan.context, "tokens of context (0: up to 4096)");
    add_choice(
        app, "--activations", model.cpu.activations,
        {{"int8", nibble::activation_type::int8}, {"float", nibble::activation_type::float32}},
        "how activations enter products with quantised weights: int8, float");
    app.add_option(
        "--kv", [this](const CLI::results_t& names) { return set_kv(names.at(0)); },
        "elements of the KV cache: f16, f32");
    app.add_option("--isa", model.cpu.isa, "instruction set (default: NIBBLE_ISA, then the best)");
  }

  template <typename T>
  static void add_choice(CLI::App& app, const std::string& name, T& to,
                         const std::map<std::string, T>& choices, const std::string& help) {
    app.add_option_function<std::string>(
           name, [&to, choices](const std::string& chosen) { to = choices.at(chosen); }, help)
        ->check(CLI::IsMember(choices));
  }

  bool set_kv(const std::string& name) {
    if (name != "f16" && name != "f32") return false;
    model.plan.key = model.plan.value = name == "f16" ? nibble::kv_type::f16 : nibble::kv_type::f32;
    return true;
  }
};

// Runs a program's work: an exception becomes a sentence on stderr and exit code 1.
template <typename Work>
int run(const Work& work) {
  try {
    work();
    return 0;
  } catch (const std::exception& e) {
    std::cerr << "error: " << e.what() << '\n';
    return 1;
  }
}

}  // namespace common

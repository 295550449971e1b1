// What several programs share: reading options for models and token ids, saying what failed.
#pragma once

#include <unistd.h>
#include <CLI/CLI.hpp>
#include <charconv>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <fstream>
#include <functional>
#include <iostream>
#include <iterator>
#include <limits>
#include <map>
#include <nibble/base/concat.hpp>
#include <nibble/nibble.hpp>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "output.hpp"

namespace common {

// For options whose text must be some: what is wrong with it.
inline std::string not_empty(const std::string& text) {
  return text.empty() ? "must not be empty" : "";
}

// What is wrong with the text of a seed; too great a number would be cut down silently.
inline std::string is_seed(const std::string& text) {
  std::uint64_t seed = 0;
  const char* const end = text.data() + text.size();
  const auto read = std::from_chars(text.data(), end, seed);
  if (read.ec == std::errc{} && read.ptr == end) return "";
  return "a whole number from 0 to 2^64 - 1 was expected, not '" + nibble::gguf::printable(text) +
         "'";
}

// An option whose value is one of these names; its help lists them.
template <typename T>
CLI::Option* add_choice(CLI::App& app, const std::string& name,
                        const std::map<std::string, T>& choices, const std::function<void(T)>& set,
                        const std::string& help) {
  std::vector<std::string> names;
  for (const auto& [choice, value] : choices) names.push_back(choice);
  return app
      .add_option_function<std::string>(
          name, [set, choices](const std::string& chosen) { set(choices.at(chosen)); }, help)
      ->check(CLI::IsMember(names));
}

inline const std::map<std::string, nibble::kv_type>& kv_types() {
  static const std::map<std::string, nibble::kv_type> all = {{"f16", nibble::kv_type::f16},
                                                             {"f32", nibble::kv_type::f32}};
  return all;
}
inline std::string name_of(nibble::kv_type type) {
  for (const auto& [name, known] : kv_types()) {
    if (known == type) return name;
  }
  return "?";
}
inline std::string name_of(nibble::activation_type type) {
  return type == nibble::activation_type::int8 ? "int8" : "float";
}

// "f16" or "f16,f32": keys and values, or both; `option` stands for it in errors.
inline void parse_kv(const std::string& option, const std::string& text,
                     nibble::plan_options& plan) {
  const std::size_t comma = text.find(',');
  const std::string key = text.substr(0, comma);
  const std::string value = comma == text.npos ? key : text.substr(comma + 1);
  const auto& all = kv_types();
  if (!all.contains(key) || !all.contains(value)) {
    std::string known;
    for (const auto& [name, type] : all) known += (known.empty() ? "" : ", ") + name;
    throw CLI::ValidationError(option, "'" + text +
                                           "' is not a type, or one for keys and one for values " +
                                           "with a comma between them; types are " + known);
  }
  plan.key = all.at(key);
  plan.value = all.at(value);
}

// How a model is loaded, as options of a command line.
struct load_options {
  std::string path;
  nibble::model_options model;

  void add_to(CLI::App& app) {
    add_file(app);
    app.add_option("-b,--batch", model.plan.batch, "prompt tokens that are computed together")
        ->capture_default_str();
    app.add_option("-c,--context", model.plan.context, "tokens of context (0: up to 4096)")
        ->check(CLI::Range(0, std::numeric_limits<std::int32_t>::max()));
    add_arithmetic(app);
  }

  // The parts of it.
  void add_file(CLI::App& app) {
    app.add_option("model", path, "GGUF file (any part of a split one)")->required();
    app.add_option("-t,--threads", model.cpu.threads, "threads (0: the physical cores)");
  }
  // With a prefix these are another model's, which are as the first one's unless they are given.
  void add_arithmetic(CLI::App& app, const std::string& prefix = "") {
    const bool own = prefix.empty();
    const auto by_default = [&](const std::string& what) {
      return own ? " (default: " + what + ")" : " of the reference (default: the model's)";
    };
    add_choice<nibble::activation_type>(
        app, "--" + prefix + "activations",
        {{"int8", nibble::activation_type::int8}, {"float", nibble::activation_type::float32}},
        [this](auto chosen) { model.cpu.activations = chosen; },
        "how activations enter products with quantised weights" + by_default("int8"));
    const std::string kv = "--" + prefix + "kv";
    app.add_option_function<std::string>(
        own ? kv : kv + ",--kl-against",
        [this, kv](const std::string& text) { parse_kv(kv, text, model.plan); },
        "elements of the KV cache, or of keys and values: f16,f32" +
            by_default(name_of(model.plan.key)));
    app.add_option("--" + prefix + "isa", model.cpu.isa,
                   "instruction set" + by_default("NIBBLE_ISA, then the best"))
        ->check(not_empty);
  }

  void set_kv(nibble::kv_type type) { model.plan.key = model.plan.value = type; }
};

// Whether reading ended at an error instead of the end; std::cin takes the one for the other.
inline void check_standard_input() {
  if (std::ferror(stdin) == 0) return;
  throw nibble::error(nibble::errc::io, "cannot be read.", {.file = "standard input"});
}

inline std::string read_standard_input() {
  std::string all{std::istreambuf_iterator<char>(std::cin), {}};
  check_standard_input();
  return all;
}

// Token ids between white space, up to the end of the input; `name` stands for it in errors.
inline std::vector<nibble::token> read_tokens(std::istream& in, const std::string& name) {
  std::vector<nibble::token> tokens;
  for (std::string word; in >> word;) {
    nibble::token id = 0;
    const char* const end = word.data() + word.size();
    if (const auto read = std::from_chars(word.data(), end, id);
        read.ec != std::errc{} || read.ptr != end) {
      throw nibble::error(
          nibble::errc::invalid_argument,
          "'" + nibble::gguf::printable(word) + "' is not a token id; whole numbers were expected.",
          {.file = name});
    }
    tokens.push_back(id);
  }
  if (in.bad()) throw nibble::error(nibble::errc::io, "cannot be read.", {.file = name});
  return tokens;
}

// Reads the command line. When that is all there is to do, as after --help or a mistake, prints
// what there is to say and returns the exit status: 0 for help, 2 for mistakes.
inline std::optional<int> parse(CLI::App& app, int argc, char** argv) {
  try {
    app.parse(argc, argv);
    return std::nullopt;
  } catch (const CLI::ParseError& e) {
    return app.exit(e) == 0 ? 0 : 2;
  }
}

// Runs a program's work: an exception becomes a sentence on stderr and exit code 1.
template <typename Work>
int run(const Work& work) {
  try {
    work();
    finish(std::cout, "standard output");
    return 0;
  } catch (const std::exception& e) {
    std::cerr << "error: " << e.what() << '\n';
    const auto* const known = dynamic_cast<const nibble::error*>(&e);
    if (known != nullptr && known->code() == nibble::errc::cancelled) end_by_caught_signal();
    return 1;
  }
}

}  // namespace common

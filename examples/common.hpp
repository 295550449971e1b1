// What several programs share: reading options for models and token ids, saying what failed.
#pragma once

#include <unistd.h>
#include <CLI/CLI.hpp>
#include <charconv>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <functional>
#include <iostream>
#include <map>
#include <new>
#include <nibble/base/concat.hpp>
#include <nibble/nibble.hpp>
#include <nibble/quantise/mix.hpp>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>

#include "amounts.hpp"
#include "output.hpp"
#include "text_input.hpp"

namespace common {

// A command line that asks for what cannot be, where that shows only after it was read: run() ends
// with 2, as parse() does.
class usage_error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

inline bool is_refusal(const nibble::error& e) {
  return e.code() == nibble::errc::invalid_argument || e.code() == nibble::errc::unsupported;
}

// Runs work() that depends on options alone: what the library refuses in it, the options ask for.
template <typename Work>
decltype(auto) as_usage(const Work& work) {
  try {
    return work();
  } catch (const nibble::error& e) {
    if (is_refusal(e)) throw usage_error(e.what());
    throw;
  }
}

// The same for an option's check: what is wrong, or "".
template <typename Work>
std::string refusal_of(const Work& work) {
  try {
    work();
    return "";
  } catch (const nibble::error& e) {
    if (is_refusal(e)) return e.what();
    throw;
  }
}

// "1 token", "2 tokens"
template <typename Number>
std::string counted(Number n, const std::string& what) {
  return nibble::concat(n, ' ', what, n == 1 ? "" : "s");
}

// For options whose text must be some: what is wrong with it.
inline std::string not_empty(const std::string& text) {
  return text.empty() ? "must not be empty" : "";
}

// What is wrong with the name of a type of nibble-quantize.
inline std::string is_type(const std::string& name) {
  return refusal_of([&] { nibble::choose_formats({}, {}, {.type = name}); });
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

inline std::string name_of(nibble::kv_type type) {
  return std::string(nibble::info_of(type).name);
}
// "f32, f16, ..."
inline std::string kv_type_names() {
  std::string names;
  for (const auto& info : nibble::all_kv_types) {
    if (!names.empty()) names += ", ";
    names += info.name;
  }
  return names;
}
// Where a model lies: "cuda0 (NVIDIA H200) and CPU (16 cores, avx2)".
inline std::string device_names(const nibble::placement& plan) {
  std::string names;
  for (const nibble::device_use& use : plan.devices) {
    names += (names.empty() ? "" : " and ") + use.device.name;
  }
  return names;
}
inline std::uint64_t total_bytes(const nibble::placement& plan) {
  std::uint64_t bytes = 0;
  for (const nibble::device_use& use : plan.devices) bytes += use.total();
  return bytes;
}

inline std::string name_of(nibble::activation_type type) {
  return type == nibble::activation_type::int8 ? "int8" : "float";
}

// "a,b", or "a" for both; `option` stands for it in errors.
inline std::pair<std::string, std::string> split_kv(const std::string& text) {
  const std::size_t comma = text.find(',');
  return {text.substr(0, comma), comma == text.npos ? text : text.substr(comma + 1)};
}

// "f16", or "q8,q4" for keys and values.
inline void parse_kv(const std::string& option, const std::string& text,
                     nibble::plan_options& plan) {
  const auto [key, value] = split_kv(text);
  const auto type = [&](const std::string& name) {
    const auto found = nibble::find_kv_type(name);
    if (found) return *found;
    throw CLI::ValidationError(option, "'" + nibble::gguf::printable(name) +
                                           "' is not a type; types are " + kv_type_names());
  };
  plan.key = type(key);
  plan.value = type(value);
}

// "on", "off", or "on,off" for keys and values.
inline void parse_rotation(const std::string& option, const std::string& text,
                           nibble::plan_options& plan) {
  const auto [key, value] = split_kv(text);
  const auto on = [&](const std::string& word) {
    if (word == "on" || word == "off") return word == "on";
    throw CLI::ValidationError(option,
                               "'" + nibble::gguf::printable(word) +
                                   "' is neither on nor off (one for both, or keys,values)");
  };
  plan.rotate_key = on(key);
  plan.rotate_value = on(value);
}

inline CLI::Option* add_threads(CLI::App& app, std::int32_t& threads,
                                const std::string& by_default = "the physical cores") {
  return app.add_option("-t,--threads", threads, "threads (0: " + by_default + ")")
      ->check(CLI::Range(0, 1024));
}

// A file that gets JSON, besides what is printed.
inline void add_json(CLI::App& app, std::string& path, const std::string& help) {
  app.add_option("--json", path, help)->check(is_separate_output);
}

// What the library's plans take at most, tokens.
inline constexpr std::int32_t most_batch = 1 << 16, most_context = 1 << 28;

// What is wrong with the name of an instruction set.
inline std::string is_isa(const std::string& name) {
  if (name.empty()) return not_empty(name);
  return refusal_of([&] { nibble::make_cpu_backend({.threads = 1, .isa = name}); });
}

// How much memory a model may take, and where.
struct placement_options {
  std::string vram, ram, headroom;
  std::int32_t gpu_layers = -1;
  nibble::shortage if_short = nibble::shortage::warn;

  void add_to(CLI::App& app) {
    app.add_option("--vram", vram, "memory of each GPU that may be taken: 6GiB, 80%")
        ->check(is_amount);
    app.add_option("--ram", ram, "memory of the host that may be taken: 16GiB, 50%")
        ->check(is_amount);
    app.add_option("--headroom", headroom,
                   "of each device's free memory, left free: 1GiB, 5% (default: 10%)")
        ->check(is_amount);
    app.add_option("--gpu-layers", gpu_layers,
                   "so many of the last layers on GPUs, the others on the CPU (default: by speed)")
        ->check(CLI::Range(0, 1 << 20));
    add_choice<nibble::shortage>(
        app, "--if-short",
        {{"warn", nibble::shortage::warn},
         {"degrade", nibble::shortage::degrade},
         {"fail", nibble::shortage::fail}},
        [this](auto chosen) { if_short = chosen; },
        "if not everything fits on the GPUs: run the rest on the CPU, "
        "give up precision of keys and values and context, or fail "
        "(default: warn)");
  }

  void apply(nibble::plan_options& plan) const {
    if (!vram.empty()) plan.vram = limit_of(vram);
    if (!ram.empty()) plan.ram = limit_of(ram);
    if (is_percentage(headroom)) {
      plan.headroom = limit_of(headroom).share;
    } else if (!headroom.empty()) {
      plan.headroom_bytes = limit_of(headroom).bytes;
    }
    plan.gpu_layers = gpu_layers;
    plan.on_shortage = if_short;
  }
};

// How a model is loaded, as options of a command line.
struct load_options {
  std::string path;
  nibble::model_options model;
  placement_options placement;

  void add_to(CLI::App& app) {
    add_file(app);
    app.add_option("-b,--batch", model.plan.batch, "prompt tokens that are computed together")
        ->capture_default_str()
        ->check(CLI::Range(1, most_batch));
    app.add_option("-c,--context", model.plan.context, "tokens of context (0: up to 4096)")
        ->check(CLI::Range(0, most_context));
    add_arithmetic(app);
  }

  // The parts of it.
  void add_file(CLI::App& app) {
    app.add_option("model", path, "GGUF file (any part of a split one)")->required();
    app.add_option(
           "--device", model.device,
           "cpu, the id of a GPU (nibble-devices lists them), disk for what fits into no "
           "memory, several of them separated by commas (cpu,disk), or auto: all there are, "
           "as far as they make it faster")
        ->capture_default_str()
        ->check(not_empty);
    placement.add_to(app);
    app.parse_complete_callback([this] { placement.apply(model.plan); });
    add_threads(app, model.cpu.threads);
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
        "types of keys and values in the cache, one for both or K,V: " + kv_type_names() +
            by_default(name_of(model.plan.key)));
    const std::string rotation = "--" + prefix + "kv-rotation";
    app.add_option_function<std::string>(
        rotation,
        [this, rotation](const std::string& text) { parse_rotation(rotation, text, model.plan); },
        "rotate keys and values before they are stored, on or off, one for both or K,V" +
            by_default("on for keys below 16 bits"));
    app.add_option("--" + prefix + "isa", model.cpu.isa,
                   "instruction set" + by_default("NIBBLE_ISA, then the best"))
        ->check(is_isa);
  }

  void set_kv(nibble::kv_type type) { model.plan.key = model.plan.value = type; }
};

// Options that have one value and were given several; "" if there are none.
inline std::string repeated(const CLI::App& app) {
  std::string names;
  for (const CLI::Option* option : app.get_options()) {
    if (option->get_items_expected_max() != 1 || option->count() < 2) continue;
    names += nibble::concat(names.empty() ? "" : ", ", option->get_name(), " is given ",
                            option->count(), " times");
  }
  return names.empty() ? "" : names + "; once was expected";
}

// Runs a program's work: an exception becomes a sentence on stderr and exit code 1, or 2 for a
// usage_error.
template <typename Work>
int run(const Work& work) {
  try {
    work();
    finish(std::cout, "standard output");
    return 0;
  } catch (const usage_error& e) {
    std::cerr << "error: " << e.what() << '\n';
    return 2;
  } catch (const std::bad_alloc&) {
    std::cerr << "error: there is not enough memory for this.\n";
    return 1;
  } catch (const std::exception& e) {
    std::cerr << "error: " << e.what() << '\n';
    const auto* const known = dynamic_cast<const nibble::error*>(&e);
    if (known != nullptr && known->code() == nibble::errc::cancelled) end_by_caught_signal();
    return 1;
  }
}

// Whole numbers that begin with 0 would be read in base 8: refuses them, for all options that have
// such numbers.
inline void read_as_decimal(CLI::App& app) {
  const auto is_decimal = [](const std::string& text) -> std::string {
    const std::size_t at = text.starts_with('-') || text.starts_with('+') ? 1 : 0;
    const bool octal =
        text.size() > at + 1 && text[at] == '0' && text[at + 1] >= '0' && text[at + 1] <= '9';
    if (!octal) return "";
    return "a whole number without 0 before it was expected, not '" +
           nibble::gguf::printable(text) + "'";
  };
  for (CLI::Option* option : app.get_options()) {
    const std::string type = option->get_type_name();
    if (!type.starts_with("INT") && !type.starts_with("UINT")) continue;
    option->transform(CLI::Validator(is_decimal, ""));  // looks first
  }
}

// Reads the command line. When that is all there is to do, as after --help or a mistake, prints
// what there is to say and returns the exit status: 0 for help, 2 for mistakes.
inline std::optional<int> parse(CLI::App& app, int argc, char** argv) {
  read_as_decimal(app);
  try {
    app.parse(argc, argv);
    return std::nullopt;
  } catch (const CLI::ArgumentMismatch& e) {
    const std::string again = repeated(app);
    app.exit(again.empty() ? e : CLI::ArgumentMismatch(again));
    return 2;
  } catch (const CLI::ParseError& e) {
    if (app.exit(e) != 0) return 2;
    return run([] {});  // whether all of the help arrived
  }
}

}  // namespace common

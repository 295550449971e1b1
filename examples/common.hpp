// What several programs share: reading options for models and token ids, saying what failed.
#pragma once

#include <unistd.h>
#include <CLI/CLI.hpp>
#include <charconv>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iostream>
#include <iterator>
#include <limits>
#include <map>
#include <nibble/base/concat.hpp>
#include <nibble/nibble.hpp>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

namespace common {

// For options whose text must be some: what is wrong with it.
inline std::string not_empty(const std::string& text) {
  return text.empty() ? "must not be empty" : "";
}

// How a model is loaded, as options of a command line.
struct load_options {
  std::string path;
  nibble::model_options model;

  void add_to(CLI::App& app) {
    app.add_option("model", path, "GGUF file (any part of a split one)")->required();
    app.add_option("-t,--threads", model.cpu.threads, "threads (0: the physical cores)");
    app.add_option("-b,--batch", model.plan.batch, "prompt tokens that are computed together")
        ->capture_default_str();
    app.add_option("-c,--context", model.plan.context, "tokens of context (0: up to 4096)")
        ->check(CLI::Range(0, std::numeric_limits<std::int32_t>::max()));
    add_choice<nibble::activation_type>(
        app, "--activations",
        {{"int8", nibble::activation_type::int8}, {"float", nibble::activation_type::float32}},
        [this](auto chosen) { model.cpu.activations = chosen; },
        "how activations enter products with quantised weights (default: int8)");
    add_choice<nibble::kv_type>(
        app, "--kv", {{"f16", nibble::kv_type::f16}, {"f32", nibble::kv_type::f32}},
        [this](auto chosen) { set_kv(chosen); },
        nibble::concat("elements of the KV cache (default: ", kv_name(), ")"));
    app.add_option("--isa", model.cpu.isa, "instruction set (default: NIBBLE_ISA, then the best)")
        ->check(not_empty);
  }

  void set_kv(nibble::kv_type type) { model.plan.key = model.plan.value = type; }

 private:
  const char* kv_name() const { return model.plan.key == nibble::kv_type::f16 ? "f16" : "f32"; }

  // An option whose value is one of these names; its help lists them.
  template <typename T>
  static void add_choice(CLI::App& app, const std::string& name,
                         const std::map<std::string, T>& choices, const std::function<void(T)>& set,
                         const std::string& help) {
    std::vector<std::string> names;
    for (const auto& [choice, value] : choices) names.push_back(choice);
    app.add_option_function<std::string>(
           name, [set, choices](const std::string& chosen) { set(choices.at(chosen)); }, help)
        ->check(CLI::IsMember(names));
  }
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

// Output goes through a buffer, so only now it is known whether all of it arrived.
inline void finish(std::ostream& out, const std::string& name) {
  if (!out.flush()) throw nibble::error(nibble::errc::io, "cannot be written.", {.file = name});
}

// A file to write. It takes its name when it is whole, so an error leaves what was there before;
// what is no regular file (a device, a pipe, a link) is written in place.
class output {
 public:
  // `inputs`: files that are read, which it must not replace.
  output(std::string path, const std::vector<std::string>& inputs) : path_(std::move(path)) {
    std::error_code absent;
    for (const std::string& input : inputs) {
      if (std::filesystem::is_regular_file(path_, absent) &&
          std::filesystem::equivalent(path_, input, absent)) {
        throw nibble::error(
            nibble::errc::invalid_argument,
            "is an input and would be lost; another name for the output was expected.",
            {.file = path_});
      }
    }
    const auto type = std::filesystem::symlink_status(path_, absent).type();
    if (type == std::filesystem::file_type::regular ||
        type == std::filesystem::file_type::not_found) {
      temporary_ = nibble::concat(path_, ".", ::getpid(), ".part");
    }
    stream_.open(temporary_.empty() ? path_ : temporary_, std::ios::binary);
    if (!stream_) fail("cannot be opened for writing.");
  }
  output(const output&) = delete;
  output& operator=(const output&) = delete;
  ~output() {
    std::error_code ignored;
    if (!temporary_.empty()) std::filesystem::remove(temporary_, ignored);
  }

  std::ostream& stream() { return stream_; }

  void finish() {
    common::finish(stream_, path_);
    stream_.close();
    if (temporary_.empty()) return;
    std::error_code failed;
    std::filesystem::rename(temporary_, path_, failed);
    if (failed) fail("cannot be written.");
    temporary_.clear();
  }

 private:
  [[noreturn]] void fail(const char* what) const {
    throw nibble::error(nibble::errc::io, what, {.file = path_});
  }

  std::string path_, temporary_;
  std::ofstream stream_;
};

// Runs a program's work: an exception becomes a sentence on stderr and exit code 1.
template <typename Work>
int run(const Work& work) {
  try {
    work();
    finish(std::cout, "standard output");
    return 0;
  } catch (const std::exception& e) {
    std::cerr << "error: " << e.what() << '\n';
    return 1;
  }
}

}  // namespace common

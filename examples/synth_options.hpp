// What nibble-synth is asked for on its command line.
#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <string>

#include "synth_presets.hpp"

namespace synth {

struct options {
  std::string out, preset, type = "q4_0", arch, rope_kind, name;
  model_numbers given;  // by options of their own
  double rope_factor = 0;
  std::int32_t rope_original = 0;
  bool tied = false, untied = false;
  bool pure = false;  // one format for all matrices
  bool header_only = false, no_vocabulary = false, list = false;
  std::uint64_t seed = 0;
  std::int32_t threads = 0;
};

void add_options(CLI::App& app, options& o);
// Throws CLI::ParseError for options that do not go together.
void check_options(const CLI::App& app, const options& o);

// The numbers of the preset, those given in their place, and what is usual for the rest. Refers to
// texts of `o`. Throws nibble::error (invalid_argument) naming options: those that are missing,
// contradict each other, or would do nothing.
model_numbers numbers_of(const options& o);

}  // namespace synth

// How tokens are chosen, as options of a command line; the names are llama.cpp's.
#pragma once

#include <CLI/CLI.hpp>
#include <algorithm>
#include <charconv>
#include <cstdint>
#include <nibble/nibble.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "common.hpp"

namespace common {

namespace sampling {

// "15043+1.5", "15043-inf"
inline nibble::logit_bias to_bias(const std::string& text) {
  nibble::logit_bias out;
  const char* const end = text.data() + text.size();
  const auto id = std::from_chars(text.data(), end, out.id);
  const std::string_view sign(id.ptr, std::min<std::ptrdiff_t>(end - id.ptr, 2));
  const bool plus = sign.starts_with('+') && sign != "+-";
  const auto bias = std::from_chars(id.ptr + (plus ? 1 : 0), end, out.bias);
  const bool whole = id.ec == std::errc{} && bias.ec == std::errc{} && bias.ptr == end;
  if (whole && (plus || sign.starts_with('-'))) return out;
  throw CLI::ValidationError(
      "--logit-bias: a token's id and what is added to its logit were expected, such as 15043+1.5 "
      "or 15043-inf, not '" +
      nibble::gguf::printable(text) + "'");
}

inline std::vector<nibble::sampling_stage> to_order(const std::string& text) {
  std::vector<nibble::sampling_stage> order;
  std::string_view rest = text;
  while (!rest.empty()) {
    const std::size_t end = std::min(rest.find_first_of(";,"), rest.size());
    try {
      order.push_back(nibble::to_sampling_stage(rest.substr(0, end)));
    } catch (const nibble::error& e) {
      throw CLI::ValidationError("--samplers: " + std::string(e.what()));
    }
    rest.remove_prefix(std::min(end + 1, rest.size()));
  }
  return order;
}

inline std::string to_text(const std::vector<nibble::sampling_stage>& order) {
  std::string text;
  for (const auto stage : order) text.append(text.empty() ? "" : ";").append(to_text(stage));
  return text;
}

// \n, \t, \" and \\ as in C, because shells make it hard to write these letters.
inline std::string unescaped(std::string_view text) {
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    constexpr std::string_view names = "nt\"\\", letters = "\n\t\"\\";
    const bool pair = text[i] == '\\' && i + 1 < text.size();
    const std::size_t at = pair ? names.find(text[i + 1]) : std::string_view::npos;
    out += at == std::string_view::npos ? text[i] : letters[at];
    if (at != std::string_view::npos) ++i;
  }
  return out;
}

}  // namespace sampling

// Adds options that change `o`, in groups of their own. What is out of range is refused by
// nibble::validate, not here.
class sampling_group {
 public:
  sampling_group(CLI::App& app, nibble::sampling_options& o) : app_(app), o_(o) {
    add_common();
    add_penalties();
    add_dry();
    add_others();
  }

 private:
  template <typename T>
  void add(const char* group, const char* name, T& value, const char* help) {
    app_.add_option(name, value, help)->capture_default_str()->group(group);
  }

  void add_common() {
    constexpr const char* group = "Sampling";
    nibble::sampling_options& o = o_;
    add(group, "--temperature,--temp", o.temperature, "0: always the most probable token");
    add(group, "--top-k", o.top_k, "keep the k best tokens; 0: all");
    add(group, "--top-p", o.top_p, "keep the best tokens up to this probability; 1: all");
    add(group, "--min-p", o.min_p, "drop tokens below this share of the best; 0: none");
    app_.add_option_function<std::uint64_t>(
            "-s,--seed", [&o](std::uint64_t seed) { o.seed = seed; },
            "of the random draws (default: another one each time)")
        ->check(is_seed)
        ->group(group);
    app_.add_option_function<std::string>(
            "--samplers,--sampler-order",
            [&o](const std::string& text) { o.order = sampling::to_order(text); },
            "the stages that act, in this order (default: " + sampling::to_text(o.order) + ")")
        ->group(group);
    app_.add_option_function<std::vector<std::string>>(
            "-l,--logit-bias",
            [&o](const std::vector<std::string>& all) {
              for (const auto& one : all) o.logit_bias.push_back(sampling::to_bias(one));
            },
            "TOKEN_ID+BIAS or TOKEN_ID-BIAS, added to the token's logit; -inf forbids the token; "
            "may be repeated")
        ->allow_extra_args(false)
        ->group(group);
  }

  void add_penalties() {
    constexpr const char* group = "Sampling: penalties";
    nibble::sampling_options& o = o_;
    add(group, "--repeat-last-n", o.repeat_last_n,
        "how many of the last tokens count; 0: none, -1: all");
    add(group, "--repeat-penalty", o.repeat_penalty,
        "divides positive logits of these, multiplies others; 1: off");
    add(group, "--presence-penalty", o.presence_penalty,
        "subtracted once from the logits of these; 0: off");
    add(group, "--frequency-penalty", o.frequency_penalty, "subtracted for each time; 0: off");
  }

  void add_dry() {
    constexpr const char* group = "Sampling: DRY, against repeated sequences";
    nibble::sampling_options& o = o_;
    add(group, "--dry-multiplier", o.dry_multiplier,
        "penalty for a repetition of the allowed length; 0: off");
    add(group, "--dry-base", o.dry_base, "what each token beyond it multiplies the penalty with");
    add(group, "--dry-allowed-length", o.dry_allowed_length,
        "the shortest repetition that is penalised, tokens");
    add(group, "--dry-penalty-last-n", o.dry_penalty_last_n,
        "how many of the last tokens are searched; 0: none, -1: all");
    app_.add_option_function<std::vector<std::string>>(
            "--dry-sequence-breaker",
            [&o](const std::vector<std::string>& all) {
              o.dry_sequence_breakers.clear();
              for (const auto& one : all) {
                if (one != "none") o.dry_sequence_breakers.push_back(sampling::unescaped(one));
              }
            },
            "no repetition reaches across this text (\\n and \\t may be written so); may be "
            "repeated; none: no breakers (default: \\n : \" *)")
        ->allow_extra_args(false)
        ->group(group);
  }

  void add_others() {
    constexpr const char* group = "Sampling: other ways to choose";
    nibble::sampling_options& o = o_;
    add(group, "--typical,--typical-p", o.typical,
        "keep tokens as surprising as the entropy says, up to this probability; 1: off");
    add(group, "--top-n-sigma,--top-nsigma", o.top_n_sigma,
        "drop logits more than n standard deviations below the best; 0: off");
    add(group, "--xtc-probability", o.xtc_probability,
        "how often the most probable tokens are excluded; 0: off");
    add(group, "--xtc-threshold", o.xtc_threshold,
        "the least probability of a token that may be excluded; above 0.5: off");
    add(group, "--dynatemp-range", o.dynatemp_range,
        "how far the entropy may change the temperature; 0: off");
    add(group, "--dynatemp-exp", o.dynatemp_exponent, "exponent of the entropy's share");
    add(group, "--mirostat", o.mirostat,
        "2: Mirostat 2.0 in place of all stages that drop tokens; 0: off");
    add(group, "--mirostat-ent", o.mirostat_tau, "its target, tau: bits of surprise");
    add(group, "--mirostat-lr", o.mirostat_eta, "its rate of learning, eta");
  }

  CLI::App& app_;
  nibble::sampling_options& o_;
};

}  // namespace common

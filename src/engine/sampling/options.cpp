#include <algorithm>
#include <array>
#include <cmath>
#include <nibble/base/concat.hpp>
#include <nibble/base/error.hpp>
#include <nibble/engine/sampling_options.hpp>
#include <nibble/gguf/value.hpp>
#include <string>

namespace nibble::inline NIBBLE_ABI {
namespace {

constexpr sampling_stage all_stages[] = {
    sampling_stage::penalties, sampling_stage::dry,     sampling_stage::top_n_sigma,
    sampling_stage::top_k,     sampling_stage::typical, sampling_stage::top_p,
    sampling_stage::min_p,     sampling_stage::xtc,     sampling_stage::temperature};
constexpr std::string_view names[] = {"penalties", "dry",   "top_n_sigma", "top_k",      "typical",
                                      "top_p",     "min_p", "xtc",         "temperature"};
static_assert(std::size(all_stages) == std::size(names));

std::string all_names() {
  std::string text;
  for (const std::string_view name : names) text.append(text.empty() ? "" : ", ").append(name);
  return text;
}

[[noreturn]] void refuse(const std::string& sentence) {
  throw error(errc::invalid_argument, sentence);
}

template <typename T>
[[noreturn]] void refuse(const char* option, T value, const char* right) {
  refuse(concat("the sampling option ", option, " is ", value, "; it must be ", right, "."));
}

void check_between(const char* option, float value, float least, float most, const char* right) {
  if (!(value >= least && value <= most)) refuse(option, value, right);
}

void check_not_negative(const char* option, float value) {
  if (!(value >= 0) || !std::isfinite(value))
    refuse(option, value, "a finite number, 0 or greater");
}

void check_finite(const char* option, float value) {
  if (!std::isfinite(value)) refuse(option, value, "a finite number");
}

void check_window(const char* option, std::int32_t value) {
  if (value < -1) refuse(option, value, "-1 (all tokens), 0 (none) or greater");
}

void check_biases(std::span<const logit_bias> biases) {
  std::vector<token> ids;
  for (const auto& [id, bias] : biases) {
    if (id < 0) refuse(concat("a logit bias is for token ", id, "; ids begin with 0."));
    if (!std::isfinite(bias) && !(bias < 0)) {
      refuse(concat("the logit bias of token ", id, " is ", bias,
                    "; it must be finite, or minus infinity to forbid the token."));
    }
    ids.push_back(id);
  }
  std::sort(ids.begin(), ids.end());
  const auto twice = std::adjacent_find(ids.begin(), ids.end());
  if (twice != ids.end()) refuse(concat("token ", *twice, " has two logit biases; give one."));
}

void check_order(std::span<const sampling_stage> order) {
  std::array<bool, std::size(names)> seen{};
  for (const sampling_stage stage : order) {
    const auto i = static_cast<std::size_t>(stage);
    if (i >= std::size(names)) {
      refuse(concat("the sampling order has stage number ", i, "; there are ", all_names(), "."));
    }
    if (seen[i]) refuse(concat("the sampling order has ", names[i], " twice; once is allowed."));
    seen[i] = true;
  }
}

}  // namespace

std::span<const sampling_stage> default_sampling_order() noexcept {
  return all_stages;
}

std::string_view to_text(sampling_stage stage) noexcept {
  const auto i = static_cast<std::size_t>(stage);
  return i < std::size(names) ? names[i] : "unknown";
}

sampling_stage to_sampling_stage(std::string_view name) {
  std::string plain(name);
  std::replace(plain.begin(), plain.end(), '-', '_');
  if (plain == "typ_p") plain = to_text(sampling_stage::typical);
  const auto found = std::find(std::begin(names), std::end(names), plain);
  if (found == std::end(names)) {
    refuse(
        concat("'", gguf::printable(name), "' is no sampling stage; there are ", all_names(), "."));
  }
  return all_stages[found - std::begin(names)];
}

void validate(const sampling_options& o) {
  check_not_negative("temperature", o.temperature);
  if (o.top_k < 0) refuse("top_k", o.top_k, "0 (all) or greater");
  if (!(o.top_p > 0 && o.top_p <= 1)) refuse("top_p", o.top_p, "greater than 0, at most 1");
  check_between("min_p", o.min_p, 0, 1, "between 0 and 1");
  if (!(o.typical > 0 && o.typical <= 1)) refuse("typical", o.typical, "greater than 0, at most 1");
  check_not_negative("top_n_sigma", o.top_n_sigma);
  check_window("repeat_last_n", o.repeat_last_n);
  if (!(o.repeat_penalty > 0) || !std::isfinite(o.repeat_penalty)) {
    refuse("repeat_penalty", o.repeat_penalty, "a finite number greater than 0; 1 is none");
  }
  check_finite("presence_penalty", o.presence_penalty);
  check_finite("frequency_penalty", o.frequency_penalty);
  check_not_negative("dry_multiplier", o.dry_multiplier);
  if (!(o.dry_base >= 1) || !std::isfinite(o.dry_base)) {
    refuse("dry_base", o.dry_base, "a finite number, 1 or greater");
  }
  if (o.dry_allowed_length < 1) {
    refuse("dry_allowed_length", o.dry_allowed_length, "1 or greater");
  }
  check_window("dry_penalty_last_n", o.dry_penalty_last_n);
  for (const std::string& breaker : o.dry_sequence_breakers) {
    if (breaker.empty()) refuse("one of DRY's sequence breakers is an empty text; leave it out.");
  }
  check_between("xtc_probability", o.xtc_probability, 0, 1, "between 0 and 1");
  check_between("xtc_threshold", o.xtc_threshold, 0, 1, "between 0 and 1");
  check_not_negative("dynatemp_range", o.dynatemp_range);
  check_not_negative("dynatemp_exponent", o.dynatemp_exponent);
  if (o.mirostat != 0 && o.mirostat != 2) {
    refuse("mirostat", o.mirostat, "0 (off) or 2 (Mirostat 2.0); there is no other version here");
  }
  check_not_negative("mirostat_tau", o.mirostat_tau);
  check_not_negative("mirostat_eta", o.mirostat_eta);
  check_biases(o.logit_bias);
  check_order(o.order);
}

}  // namespace nibble::inline NIBBLE_ABI

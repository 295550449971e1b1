// Amounts of memory as command lines give them: "6GiB", "80%".
#pragma once

#include <charconv>
#include <cmath>
#include <cstdint>
#include <nibble/gguf/value.hpp>
#include <nibble/plan/options.hpp>
#include <optional>
#include <string>
#include <utility>

namespace common {

// A number and its unit, "1.5GiB"; none if there is no number.
struct amount {
  double value;
  std::string unit;
};

inline std::optional<amount> read_amount(const std::string& text) {
  double value = 0;
  const auto read = std::from_chars(text.data(), text.data() + text.size(), value);
  if (read.ec != std::errc{} || !std::isfinite(value) || value < 0) return std::nullopt;
  return amount{value, std::string(read.ptr, text.data() + text.size())};
}

// Bytes of "24GiB"; none if that is no amount, or more than there is anywhere.
inline std::optional<double> bytes_of(const std::string& text) {
  constexpr double most = 1e18;
  constexpr std::pair<const char*, double> units[] = {
      {"B", 1},      {"KB", 1e3},      {"MB", 1e6},         {"GB", 1e9},           {"TB", 1e12},
      {"KiB", 1024}, {"MiB", 1 << 20}, {"GiB", 1073741824}, {"TiB", 1099511627776}};
  const auto found = read_amount(text);
  for (const auto& [unit, bytes] : units) {
    if (!found || found->unit != unit) continue;
    if (found->value * bytes > most) return std::nullopt;
    return found->value * bytes;
  }
  return std::nullopt;
}

inline bool is_percentage(const std::string& text) {
  const auto share = read_amount(text);
  return share && share->unit == "%" && share->value <= 100;
}

// For options' checks: what is wrong with the text, or "".
inline std::string is_amount(const std::string& text) {
  if (is_percentage(text) || bytes_of(text)) return "";
  return "an amount such as 6GiB or 80% was expected, not '" + nibble::gguf::printable(text) + "'";
}

inline nibble::memory_limit limit_of(const std::string& text) {
  if (is_percentage(text)) return {.share = read_amount(text)->value / 100};
  return {.bytes = static_cast<std::uint64_t>(bytes_of(text).value_or(0))};
}

}  // namespace common

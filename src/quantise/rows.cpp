#include <cmath>
#include <cstring>
#include <nibble/base/concat.hpp>
#include <nibble/base/error.hpp>
#include <nibble/formats/list.hpp>
#include <nibble/quantise/rows.hpp>

namespace nibble::inline NIBBLE_ABI {

namespace {

[[noreturn]] void refuse(const std::string& sentence) {
  throw error(errc::invalid_argument, sentence);
}

void check_sizes(format_id to, std::span<const float> x, std::int64_t columns,
                 std::span<const float> importance, std::span<std::byte> out) {
  if (columns < 1) refuse(concat("rows of ", columns, " columns cannot be quantised."));
  const auto width = static_cast<std::uint64_t>(columns);
  const std::uint64_t bytes = row_bytes(to, width);
  if (x.size() % width != 0) {
    refuse(concat(x.size(), " values are not whole rows of ", columns, " columns."));
  }
  const auto needed = checked_mul(x.size() / width, bytes);
  if (needed != out.size()) {
    refuse(concat("quantising ", x.size() / width, " rows of ", columns, " columns to ",
                  format_name(to), " makes ", needed.value_or(0), " bytes; there is room for ",
                  out.size(), "."));
  }
  if (!importance.empty() && importance.size() != width) {
    refuse(concat("there are ", importance.size(), " importances for ", columns,
                  " columns; one for each column is needed."));
  }
  for (std::size_t i = 0; i < importance.size(); ++i) {
    if (importance[i] >= 0.0f && std::isfinite(importance[i])) continue;
    refuse(concat("the importance of column ", i, " is ", importance[i],
                  "; it must be a finite number that is not negative."));
  }
}

template <weight_format F>
void encode_rows(std::span<const float> x, std::size_t columns, const float* importance,
                 std::byte* out) {
  for (std::size_t at = 0; at < x.size(); at += F::block_size) {
    typename F::block b;
    if constexpr (element_format<F>) {
      b = F::from(x[at]);
    } else {
      F::encode(x.data() + at, importance == nullptr ? nullptr : importance + at % columns, b);
    }
    std::memcpy(out, &b, sizeof b);
    out += sizeof b;
  }
}

}  // namespace

void quantise_rows(format_id to, std::span<const float> x, std::int64_t columns,
                   std::span<const float> importance, std::span<std::byte> out) {
  with_format(to, [&]<typename F>(F) {
    check_sizes(to, x, columns, importance, out);
    if constexpr (element_format<F> || encodable_format<F>) {
      encode_rows<F>(x, static_cast<std::size_t>(columns),
                     importance.empty() ? nullptr : importance.data(), out.data());
    } else {
      throw error(errc::unsupported, concat("nibble reads ", F::name, " but cannot make it yet."));
    }
  });
}

}  // namespace nibble::inline NIBBLE_ABI

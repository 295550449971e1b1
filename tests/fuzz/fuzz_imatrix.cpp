// Any bytes: an error, or an importance matrix that written again is the same.
#include <cmath>
#include <cstdlib>
#include <nibble/quantise/imatrix.hpp>
#include <optional>

namespace {

void check(bool truth) {
  if (!truth) std::abort();
}

std::optional<nibble::imatrix> read(std::span<const std::byte> bytes) {
  try {
    return nibble::read_imatrix(bytes, "fuzz");
  } catch (const nibble::error& e) {
    check(e.file() == "fuzz");
    return std::nullopt;
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto m = read(std::as_bytes(std::span(data, size)));
  if (!m) return 0;
  check(!m->tensors.empty());
  for (const auto& [name, entry] : m->tensors) {
    check(!name.empty() && entry.in_sum2.size() % entry.counts.size() == 0);
    const auto weights = entry.weights(entry.counts.size() - 1, entry.counts.size());
    check(weights.size() == entry.in_sum2.size() / entry.counts.size());
    for (const float x : entry.in_sum2) check(std::isfinite(x) && x >= 0);
  }
  std::vector<std::byte> written;
  try {
    written = nibble::imatrix_bytes(*m);
  } catch (const nibble::error& e) {  // a name that is too long for a tensor of GGUF
    check(e.code() == nibble::errc::invalid_argument);
    return 0;
  }
  const auto again = read(written);
  check(again && again->tensors.size() == m->tensors.size());
  for (const auto& [name, entry] : m->tensors) {
    check(again->tensors.at(name).in_sum2 == entry.in_sum2);
  }
  return 0;
}

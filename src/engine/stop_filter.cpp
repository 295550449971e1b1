#include "engine/stop_filter.hpp"

#include <algorithm>
#include <utility>

namespace nibble::inline NIBBLE_ABI {
namespace {

// The length of the longest end of `text` with which `stop` begins.
std::size_t overlap(std::string_view text, std::string_view stop) {
  for (std::size_t n = std::min(text.size(), stop.size()); n > 0; --n) {
    if (text.substr(text.size() - n) == stop.substr(0, n)) return n;
  }
  return 0;
}

}  // namespace

stop_filter::stop_filter(std::vector<std::string> stops) : stops_(std::move(stops)) {
  std::erase_if(stops_, [](const std::string& s) { return s.empty(); });
}

std::string stop_filter::push(std::string_view text) {
  if (stopped_) return {};
  held_ += text;
  constexpr std::size_t none = std::string::npos;
  std::size_t first = none, first_end = none, keep = 0;
  for (const std::string& stop : stops_) {
    keep = std::max(keep, overlap(held_, stop));
    const std::size_t at = held_.find(stop);
    if (at == none) continue;
    // the one that ends first, so that the text's cuts into pieces do not matter
    const std::size_t end = at + stop.size();
    if (end < first_end || (end == first_end && at < first)) first = at, first_end = end;
  }
  stopped_ = first != none;
  const std::size_t free = stopped_ ? first : held_.size() - keep;
  std::string out = held_.substr(0, free);
  held_.erase(0, stopped_ ? held_.size() : free);
  return out;
}

std::string stop_filter::flush() {
  return std::exchange(held_, {});
}

}  // namespace nibble::inline NIBBLE_ABI

// Finds stop strings in text that arrives in pieces. The one that is complete first counts, the
// longest of several that are complete at once; how the text is cut makes no difference.
#pragma once

#include <nibble/base/config.hpp>
#include <string>
#include <string_view>
#include <vector>

namespace nibble::inline NIBBLE_ABI {

class stop_filter {
 public:
  // Empty stop strings are ignored.
  explicit stop_filter(std::vector<std::string> stops);

  // Takes more text; gives what can be no part of a stop string any more.
  std::string push(std::string_view text);
  // What was held back, when no more text will come.
  std::string flush();
  // A stop string was met; everything before it has been given out.
  bool stopped() const noexcept { return stopped_; }

 private:
  std::vector<std::string> stops_;
  std::string held_;
  bool stopped_ = false;
};

}  // namespace nibble::inline NIBBLE_ABI

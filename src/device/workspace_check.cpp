#include "device/workspace_check.hpp"

#include <nibble/base/concat.hpp>
#include <nibble/base/error.hpp>

namespace nibble::inline NIBBLE_ABI {

void throw_workspace_twice(const std::string& device) {
  throw error(errc::invalid_argument, "memory for workspaces was reserved already",
              {.device = device});
}

void check_workspace(std::size_t needed, std::size_t reserved, const std::string& device) {
  if (needed <= reserved) return;
  throw error(
      errc::invalid_argument,
      concat("a program needs a workspace of ", needed, " bytes; ", reserved, " were reserved"),
      {.device = device});
}

}  // namespace nibble::inline NIBBLE_ABI

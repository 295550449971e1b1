// What every backend says about workspaces that programs share.
#pragma once

#include <cstddef>
#include <nibble/base/config.hpp>
#include <string>

namespace nibble::inline NIBBLE_ABI {

[[noreturn]] void throw_workspace_twice(const std::string& device);

// Throws error (invalid_argument) if a program needs more than was reserved.
void check_workspace(std::size_t needed, std::size_t reserved, const std::string& device);

}  // namespace nibble::inline NIBBLE_ABI

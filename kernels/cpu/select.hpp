// Which kernel tables this machine can run.
#pragma once

#include <string_view>
#include <vector>

#include "cpu/kernel_table.hpp"

namespace nibble::inline v0::cpu {

// The tables that this processor and its operating system can run, best first; "scalar" is always
// the last.
std::vector<const kernel_table*> available_kernels();

// The available table of that name; null if there is none.
const kernel_table* find_kernels(std::string_view isa);

}  // namespace nibble::inline v0::cpu

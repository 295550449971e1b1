// Which kernel tables there are, and which of them this machine can run.
#pragma once

#include <span>
#include <string_view>
#include <vector>

#include "cpu/kernel_table.hpp"

namespace nibble::inline v0::cpu {

// An instruction set that kernels were compiled for. `table` may be called only where `runs` says
// true: the function itself is code for that instruction set.
struct built_isa {
  std::string_view name;
  bool (*runs)();
  const kernel_table& (*table)();
};

// All of this build, best first; "scalar", which every machine runs, is always the last.
std::span<const built_isa> built_isas();

// The tables that this processor and its operating system can run, in the same order.
std::vector<const kernel_table*> available_kernels();

// The available table of that name; null if there is none.
const kernel_table* find_kernels(std::string_view isa);

}  // namespace nibble::inline v0::cpu

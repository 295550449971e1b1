// Where the threads must wait for each other between the steps of a program.
#pragma once

#include <memory>
#include <nibble/base/config.hpp>
#include <nibble/device/recording.hpp>
#include <vector>

#include "device/cpu_step.hpp"

namespace nibble::inline NIBBLE_ABI {

// steps[i] is r.steps[i] compiled. True at i: a barrier before step i. There is none where a thread
// touches only what it wrote itself, in values and in the bytes that values share over time.
std::vector<bool> place_barriers(const recording& r, program_limits limits,
                                 const workspace_layout& layout,
                                 const std::vector<std::unique_ptr<cpu_step>>& steps, bool single);

}  // namespace nibble::inline NIBBLE_ABI

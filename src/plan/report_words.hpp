// Parts of a placement as words.
#pragma once

#include <nibble/base/config.hpp>
#include <nibble/plan/placement.hpp>
#include <string>
#include <vector>

namespace nibble::inline NIBBLE_ABI {

// A sentence for each device that has blocks, saying which.
std::vector<std::string> words_of_blocks(const placement& p);
// "24.5 tokens a second"
std::string words_of_speed(const predicted_speed& speed);

}  // namespace nibble::inline NIBBLE_ABI

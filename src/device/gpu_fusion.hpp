// Which steps of a recording a GPU does together.
#pragma once

#include <nibble/base/config.hpp>
#include <nibble/device/recording.hpp>
#include <vector>

namespace nibble::inline NIBBLE_ABI {

// By step: gates whose result only the product right behind them reads. They become a part of that
// product's input, which reads what the gate reads.
std::vector<bool> find_taken_gates(const recording& r);

// What must be kept for that: each such gate's inputs, until the product has read them.
std::vector<kept_value> kept_for_gates(const recording& r);

}  // namespace nibble::inline NIBBLE_ABI

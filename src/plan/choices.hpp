// Decisions of a plan that do not depend on where blocks lie.
#pragma once

#include <nibble/base/config.hpp>
#include <nibble/plan/placement.hpp>

namespace nibble::inline NIBBLE_ABI {

// A placement with context, limits, keys and values chosen, and reasons for it; no devices yet.
// Throws error (invalid_argument, unsupported).
placement choose_sizes(const model_definition& model, const plan_options& options);

}  // namespace nibble::inline NIBBLE_ABI

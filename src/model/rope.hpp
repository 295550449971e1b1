// Rotary frequencies with all the scalings that models ask for, computed once.
#pragma once

#include <nibble/device/steps.hpp>
#include <nibble/model/hparams.hpp>
#include <vector>

namespace nibble::inline NIBBLE_ABI {

// The rotation of one layer. `factors` divides each frequency; empty: none.
rope_spec make_rope(rope_style style, const hparams& hp, const layer_hparams& layer,
                    const std::vector<float>& factors);

}  // namespace nibble::inline NIBBLE_ABI

// The run-time name of a weight format: its id in GGUF files.
#pragma once

#include <cstdint>
#include <nibble/base/config.hpp>

namespace nibble::inline NIBBLE_ABI {

// Values are the formats' own `gguf_id`s; which of them exist is said by formats/list.hpp alone.
enum class format_id : std::uint32_t {};

}  // namespace nibble::inline NIBBLE_ABI

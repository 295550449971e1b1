// How byte-level vocabularies (GPT-2's and most since) spell bytes.
#pragma once

#include <nibble/base/config.hpp>
#include <string>
#include <string_view>

namespace nibble::inline NIBBLE_ABI {

// The name of the token that stands for these bytes: printable bytes as themselves, the others as
// characters from U+0100 on, so that a space is U+0120.
NIBBLE_API std::string byte_level_name(std::string_view bytes);

}  // namespace nibble::inline NIBBLE_ABI

#pragma once
#include <nibble/base/config.hpp>
#include <span>
namespace nibble::inline NIBBLE_ABI {
struct arch_spec;
}

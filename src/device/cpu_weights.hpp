// How a weight lies in the CPU's arena. The kernels of today read rows as the file has them; a
// layout that suits them better changes these two functions and nothing else.
#pragma once

#include <cstddef>
#include <nibble/base/config.hpp>
#include <nibble/tensor/view.hpp>

namespace nibble::inline NIBBLE_ABI {

inline constexpr std::size_t weight_alignment = 64;

// Bytes that pack() writes, a multiple of weight_alignment. Throws error (unsupported,
// invalid_argument) if the CPU cannot compute with the tensor.
std::size_t packed_bytes(const tensor_view& tensor);
void pack(const tensor_view& tensor, std::byte* to);
// From one matrix (expert) of the packed tensor to the next.
std::size_t packed_matrix_bytes(const tensor_view& tensor);

}  // namespace nibble::inline NIBBLE_ABI

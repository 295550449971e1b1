// How a weight lies in the CPU's arena.
//
// Weights that are multiplied with int8 activations are packed: their rows lie in strips, as many
// together as a vector of the kernels has lanes (kernels/cpu/strip_layout.hpp). Others lie as in
// the file.
#pragma once

#include <cstddef>
#include <cstdint>
#include <nibble/base/config.hpp>
#include <nibble/device/backend.hpp>
#include <nibble/tensor/view.hpp>

#include "cpu/kernel_table.hpp"

namespace nibble::inline NIBBLE_ABI {

inline constexpr std::size_t weight_alignment = 64;

// Whether products with weights of this format take int8 activations: those made of blocks.
bool takes_q8(format_id format, activation_type activations);

class weight_packing {
 public:
  weight_packing(const cpu::kernel_table& kernels, activation_type activations)
      : kernels_(kernels), activations_(activations) {}

  // Bytes that pack() writes, a multiple of weight_alignment. Throws error (unsupported,
  // invalid_argument) if the CPU cannot compute with the tensor.
  std::size_t bytes(const tensor_view& tensor) const;
  // From one matrix (expert) of the packed tensor to the next.
  std::size_t matrix_bytes(const tensor_view& tensor) const;
  // Of a matrix in this format, so many rows are packed together: packing may begin at their
  // multiples.
  std::int64_t rows_together(format_id format) const {
    return takes_q8(format, activations_) ? kernels_.strip_rows : 1;
  }
  // Packs some rows, at `from`, of the tensor, which as a whole lies at `to`.
  void pack(const weight& tensor, row_range rows, const std::byte* from, std::byte* to) const;

 private:
  // Rows of a matrix, the last strip filled up.
  std::uint64_t stored_rows(const tensor_view& tensor) const;

  const cpu::kernel_table& kernels_;
  activation_type activations_;
};

}  // namespace nibble::inline NIBBLE_ABI

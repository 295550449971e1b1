// Products of 16 x 16 tiles by a warp, in the matrix instructions of the device.
//
// A and B are 16 rows each, of k values that are adjacent; a tile is made of the sums of products
// of each row of A with each row of B. Its 256 elements are spread over the lanes of the warp:
//
//   tile_size                       16
//   tile_elements                   elements of a lane: 256 / warp_size
//   tile_s8, tile_f16               the lane's elements sum[tile_elements]: integers of products of
//                                   signed bytes, floats of products of halves
//   tile_row(i), tile_column(i)     which rows of A and B the lane's element i belongs to
//   tile_operand<bytes>             16 rows of 16 or 32 bytes
//   load_rows<bytes>(first, stride) takes them from shared memory; `first` is the address of the
//                                   first row, `stride` the bytes from one to the next
//   multiply(tile_s8&, a, b)        adds products of rows of 16 or 32 bytes
//   multiply(tile_f16&, a, b)       adds products of rows of 16 halves, 32 bytes; CDNA 2 takes
//                                   subnormal halves for zeros
//
// Rules:
// - all lanes of a warp reach each load_rows() and multiply() together, with the same arguments;
// - first and stride are multiples of 16. Lanes read without bank conflicts if stride / 16 is odd;
// - operands may be read as late as multiply(): the rows stay as they are until then. So there is
//   no barrier after which others overwrite them between the two.
#pragma once

#include "gpu/dialect.hpp"

namespace nibble::inline NIBBLE_ABI::kernels {

inline constexpr int tile_size = 16;
inline constexpr int tile_elements = tile_size * tile_size / warp_size;

struct tile_s8 {
  std::int32_t sum[tile_elements] = {};
};
struct tile_f16 {
  float sum[tile_elements] = {};
};

}  // namespace nibble::inline NIBBLE_ABI::kernels

#if defined(NIBBLE_EMULATED)
#include "emulated/tile.hpp"
#elif defined(__HIP__) || defined(__HIPCC__) || defined(NIBBLE_HIP_ON_CUDA)
#include "hip/tile.hpp"
#else
#include "cuda/tile.hpp"
#endif

// What differs between the families of AMD's devices: exchange between lanes, dot products.
#pragma once

#if defined(__gfx906__) || defined(__gfx908__) || defined(__gfx90a__) || defined(__gfx940__) ||  \
    defined(__gfx941__) || defined(__gfx942__) || defined(__gfx950__) || defined(__gfx1011__) || \
    defined(__gfx1012__) || defined(__gfx1030__) || defined(__gfx1031__) ||                      \
    defined(__gfx1032__) || defined(__gfx1033__) || defined(__gfx1034__) ||                      \
    defined(__gfx1035__) || defined(__gfx1036__)
#define NIBBLE_HIP_DOT_SIGNED
#elif defined(__GFX11__) || defined(__GFX12__)
#define NIBBLE_HIP_DOT_MIXED
#endif

namespace nibble::inline NIBBLE_ABI::kernels {

// Lanes run in step and see each other's shared memory in order; the compiler must keep it.
NIBBLE_DEVICE void sync_warp() {
  __builtin_amdgcn_fence(__ATOMIC_RELEASE, "wavefront");
  __builtin_amdgcn_wave_barrier();
  __builtin_amdgcn_fence(__ATOMIC_ACQUIRE, "wavefront");
}

NIBBLE_DEVICE int word_of_lane(int word, int from) {
  return __builtin_amdgcn_ds_bpermute(4 * from, word);
}

// The word of lane ^ mask. The masks of a reduction are constants after inlining, and most of them
// need no shared memory's hardware: a register's lanes are moved within rows of 16.
NIBBLE_DEVICE int word_of_other_lane(int word, int mask) {
#if defined(__AMDGCN__)
  switch (mask) {
    case 1:
      return __builtin_amdgcn_mov_dpp(word, 0xb1, 0xf, 0xf, true);  // quad_perm 1 0 3 2
    case 2:
      return __builtin_amdgcn_mov_dpp(word, 0x4e, 0xf, 0xf, true);  // quad_perm 2 3 0 1
    case 4:
      return __builtin_amdgcn_ds_swizzle(word, 4 << 10 | 0x1f);
    case 8:
      return __builtin_amdgcn_mov_dpp(word, 0x128, 0xf, 0xf, true);  // row_ror 8
    case 16:
      return __builtin_amdgcn_ds_swizzle(word, 16 << 10 | 0x1f);
    default:
      break;
  }
#endif
  return word_of_lane(word, (static_cast<int>(threadIdx.x) % warp_size) ^ mask);
}

template <typename T, typename Move>
NIBBLE_DEVICE T move_words(T value, Move move) {
  static_assert(sizeof(T) == 4 || sizeof(T) == 8);
  struct words {
    int w[sizeof(T) / 4];
  };
  words all = __builtin_bit_cast(words, value);
  for (int& w : all.w) w = move(w);
  return __builtin_bit_cast(T, all);
}

template <typename T>
NIBBLE_DEVICE T shuffle(T value, int from) {
  return move_words(value, [=](int word) { return word_of_lane(word, from); });
}
template <typename T>
NIBBLE_DEVICE T shuffle_xor(T value, int mask) {
  return move_words(value, [=](int word) { return word_of_other_lane(word, mask); });
}

NIBBLE_DEVICE std::int32_t dot4(std::uint32_t a, std::uint32_t b, std::int32_t c) {
  const auto x = static_cast<std::int32_t>(a), y = static_cast<std::int32_t>(b);
#if defined(NIBBLE_HIP_DOT_SIGNED)
  return __builtin_amdgcn_sdot4(x, y, c, false);
#elif defined(NIBBLE_HIP_DOT_MIXED)
  return __builtin_amdgcn_sudot4(true, x, true, y, c, false);
#else
  for (int i = 0; i < 32; i += 8) {
    c += static_cast<std::int8_t>(x >> i) * static_cast<std::int8_t>(y >> i);
  }
  return c;
#endif
}

NIBBLE_DEVICE words4 load16_once(const void* from) {
  using vector = std::uint32_t __attribute__((ext_vector_type(4)));
  return __builtin_bit_cast(words4, __builtin_nontemporal_load(static_cast<const vector*>(from)));
}

NIBBLE_DEVICE float fast_reciprocal(float x) {
  return __builtin_amdgcn_rcpf(x);
}

}  // namespace nibble::inline NIBBLE_ABI::kernels

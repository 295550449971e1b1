// Vectors over the rows of a strip.
//
// Packed weights lie in strips of rows: as many as a vector has lanes of 32 bits. Lane r of a
// vector belongs to row r; a vector of codes holds four neighbouring columns of each row. One
// broadcast of four activations then feeds all rows, and no sum runs across a vector.
//
// The vectors are the compiler's own (g++ and clang), which become pairs of registers where the
// processor's are shorter.
#pragma once

#include <cstdint>
#include <cstring>
#include <nibble/base/config.hpp>
#include <nibble/base/half.hpp>

#include "cpu/simd.hpp"

// Loops over registers: unrolled before arrays are taken apart, so that none of them stays in
// memory. Loops over the units of a block: unrolled where that pays, since shifts by constants are
// cheaper; elsewhere they would only be long to compile.
#if defined(__clang__)
#define NIBBLE_UNROLL _Pragma("clang loop unroll(full)")
#else
#define NIBBLE_UNROLL _Pragma("GCC unroll 16")
#endif
#if defined(__AVX2__)
#define NIBBLE_UNROLL_UNITS NIBBLE_UNROLL
#else
#define NIBBLE_UNROLL_UNITS
#endif

namespace nibble::inline NIBBLE_ABI::kernels {

template <typename Arch>
inline constexpr int strip_rows = 8;
#if defined(__AVX512BW__)
template <>
inline constexpr int strip_rows<avx512> = 16;
#endif
#if defined(__AVX512VNNI__)
template <>
inline constexpr int strip_rows<avx512vnni> = 16;
#endif

template <typename T, int Bytes>
struct vector_type {
  using type __attribute__((vector_size(Bytes))) = T;
};

template <typename Arch>
struct strip {
  static constexpr int rows = strip_rows<Arch>;
  static constexpr int bytes = 4 * rows;  // of a vector

  using u8 = typename vector_type<std::uint8_t, bytes>::type;    // [rows][4]
  using i8 = typename vector_type<std::int8_t, bytes>::type;     // [rows][4]
  using u16 = typename vector_type<std::uint16_t, bytes>::type;  // [rows][2]
  using i16 = typename vector_type<std::int16_t, bytes>::type;   // [rows][2]
  using u32 = typename vector_type<std::uint32_t, bytes>::type;  // [rows]
  using i32 = typename vector_type<std::int32_t, bytes>::type;   // [rows]
  using f32 = typename vector_type<float, bytes>::type;          // [rows]
};

template <typename Vector>
inline Vector read(const void* from) {
  Vector v;
  std::memcpy(&v, from, sizeof v);
  return v;
}
template <typename Vector>
inline void write(void* to, const Vector& v) {
  std::memcpy(to, &v, sizeof v);
}

// All lanes the 32 bits at `from`.
template <typename Arch>
inline typename strip<Arch>::i32 broadcast_word(const void* from) {
  return read<std::int32_t>(from) - typename strip<Arch>::i32{};
}
template <typename Arch>
inline typename strip<Arch>::f32 broadcast(float x) {
  return x - typename strip<Arch>::f32{};
}

// [rows] integers below 2^24, or 16-bit floats, as floats.
template <typename Arch, typename Integers>
inline typename strip<Arch>::f32 to_floats(const Integers& x) {
  // of signed integers, which every instruction set converts
  using i32 = typename strip<Arch>::i32;
  return __builtin_convertvector(reinterpret_cast<i32>(x), typename strip<Arch>::f32);
}
template <typename Arch>
inline typename strip<Arch>::f32 read_halves(const void* from) {
  using floats = typename Arch::floats;
  constexpr int rows = strip_rows<Arch>;
  constexpr int width = static_cast<int>(floats::size);
  half halves[rows];
  std::memcpy(halves, from, sizeof halves);
  float out[rows];
  NIBBLE_UNROLL for (int i = 0; i < rows; i += width) {
    load<floats>(halves + i).store_unaligned(out + i);
  }
  return read<typename strip<Arch>::f32>(out);
}

// a * b + c, rounded once where the instruction set can.
template <typename Arch>
struct fused {
  using f32 = typename strip<Arch>::f32;
  static f32 mul_add(const f32& a, const f32& b, const f32& c) { return a * b + c; }
};
#if defined(__FMA__)
template <>
struct fused<avx2> {
  static __m256 mul_add(__m256 a, __m256 b, __m256 c) { return _mm256_fmadd_ps(a, b, c); }
};
#if defined(__AVXVNNI__)
template <>
struct fused<avxvnni> : fused<avx2> {};
#endif
#endif
#if defined(__AVX512BW__)
template <>
struct fused<avx512> {
  static __m512 mul_add(__m512 a, __m512 b, __m512 c) { return _mm512_fmadd_ps(a, b, c); }
};
#if defined(__AVX512VNNI__)
template <>
struct fused<avx512vnni> : fused<avx512> {};
#endif
#endif
#if defined(NIBBLE_NEON)
template <>
struct fused<neon> {
  using f32 = strip<neon>::f32;
  static f32 mul_add(const f32& a, const f32& b, const f32& c) {
    float32x4_t x[2], y[2], z[2];
    std::memcpy(x, &a, sizeof x);
    std::memcpy(y, &b, sizeof y);
    std::memcpy(z, &c, sizeof z);
    for (int i = 0; i < 2; ++i) z[i] = vfmaq_f32(z[i], x[i], y[i]);
    return read<f32>(z);
  }
};
#if defined(__ARM_FEATURE_DOTPROD)
template <>
struct fused<neon_dotprod> : fused<neon> {};
#endif
#endif

// Keeps the compiler from moving the operations that come after ahead of those that made `x`: g++
// would make all products of a tile first, and spill them.
template <typename Arch, typename Vector>
inline void pin(Vector& x) {
#if defined(__AVX512F__)
  asm("" : "+v"(x));
#elif defined(__AVX2__)
  asm("" : "+x"(x));
#else
  static_cast<void>(x);
#endif
}

// The same pointer, of which the compiler knows nothing: what was read through it is read again
// rather than kept, which for whole blocks means spilled.
inline const unsigned char* forget(const unsigned char* p) {
  asm("" : "+r"(p));
  return p;
}

// Weights come from memory, one row after another, and the processor's own prefetching does not
// keep enough of them on their way: asks for what lies far ahead, then, nearer, into the nearest
// cache. Where nothing is, nothing happens.
template <std::size_t Bytes>
inline void fetch_ahead(const unsigned char* from) {
  constexpr std::size_t far = 8192, near = 1024;
  NIBBLE_UNROLL for (std::size_t i = 0; i < Bytes; i += 64) {
    __builtin_prefetch(from + far + i, 0, 2);
    __builtin_prefetch(from + near + i);
  }
}

}  // namespace nibble::inline NIBBLE_ABI::kernels

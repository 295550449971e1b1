// Ternary, five values a byte (1.6875 bits a value), one scale for 256 values.
#pragma once

#include <nibble/formats/concepts.hpp>
#include <nibble/formats/fit/ternary.hpp>

namespace nibble::inline NIBBLE_ABI::formats {

struct tq1_0 {
  static constexpr std::string_view name = "tq1_0";
  static constexpr std::uint32_t gguf_id = 34;
  static constexpr int block_size = 256;
  static constexpr int group_size = 32;
  static constexpr bool has_offset = false;
  static constexpr int min_code = -1;
  static constexpr int max_code = 1;

  struct block {
    std::uint8_t qs[48];  // 32 bytes of 5 values at a stride of 32, then 16 bytes at a stride of 16
    std::uint8_t qh[4];   // 4 values a byte at a stride of 4
    half d;
  };
  static_assert(sizeof(block) == 54);

  // A byte is the fraction 0.t0 t1 t2 t3 t4 in base 3, times 256 and rounded up: multiplying by 3^k
  // modulo 256 brings digit k in front, multiplying by 3 then carries it out. A code is the digit
  // less 1.
  NIBBLE_HD static std::int8_t trit(std::uint8_t packed, int power) {
    const int front = (packed * power) & 0xff;
    return static_cast<std::int8_t>(((front * 3) >> 8) - 1);
  }

  NIBBLE_HD static void codes(const block& b, int group, std::int8_t* __restrict out) {
    // 3^0..3^4, a byte each
    constexpr std::uint64_t powers = 0x51'1b'09'03'01;
    const auto power = [](int k) { return static_cast<int>(powers >> (8 * k)) & 0xff; };
    if (group < 5) {
      for (int i = 0; i < 32; ++i) out[i] = trit(b.qs[i], power(group));
    } else if (group < 7) {
      const int k = 2 * (group - 5);
      for (int i = 0; i < 16; ++i) out[i] = trit(b.qs[32 + i], power(k));
      for (int i = 0; i < 16; ++i) out[16 + i] = trit(b.qs[32 + i], power(k + 1));
    } else {
      for (int i = 0; i < 16; ++i) out[i] = trit(b.qs[32 + i], power(4));
      for (int i = 0; i < 16; ++i) out[16 + i] = trit(b.qh[i & 3], power(i >> 2));
    }
  }

  template <typename Block>
  NIBBLE_HD static affine scale(const Block& b, int) {
    return {to_float(b.d), 0.0f};
  }

  static void encode(const float* x, const float* importance, block& b) {
    std::uint8_t c[256];
    b.d = fit_ternary<256>(x, importance, c);
    for (int i = 0; i < 32; ++i) b.qs[i] = pack_trits(c + i, 5, 32);
    for (int i = 0; i < 16; ++i) b.qs[32 + i] = pack_trits(c + 160 + i, 5, 16);
    for (int i = 0; i < 4; ++i) b.qh[i] = pack_trits(c + 240 + i, 4, 4);
  }

 private:
  // Digits at a stride -> the byte that trit() takes apart. Missing ones are 0.
  static std::uint8_t pack_trits(const std::uint8_t* digits, int count, int stride) {
    int number = 0;
    for (int k = 0; k < 5; ++k) number = 3 * number + (k < count ? digits[k * stride] : 0);
    return static_cast<std::uint8_t>((number * 256 + 242) / 243);
  }
};

static_assert(block_format<tq1_0>);

}  // namespace nibble::inline NIBBLE_ABI::formats

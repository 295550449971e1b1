// What is left of a block when its codes are taken away: the members that F::scale() reads, with
// the names and the bits of the file. Formats with the same members share a header.
#pragma once

#include <cstdint>
#include <cstring>
#include <nibble/formats/list.hpp>
#include <type_traits>

namespace nibble::inline NIBBLE_ABI::kernels {

struct d_header {
  half d;
  template <typename Block>
  static d_header of(const Block& b) {
    d_header h;
    h.d = b.d;
    return h;
  }
};

struct d_m_header {
  half d, m;
  template <typename Block>
  static d_m_header of(const Block& b) {
    return {b.d, b.m};
  }
};

struct e_header {
  std::uint8_t e;
  template <typename Block>
  static e_header of(const Block& b) {
    e_header h;
    h.e = b.e;
    return h;
  }
};

// Q4_K, Q5_K
struct k_header {
  half d, dmin;
  std::uint8_t scales[12];
  template <typename Block>
  static k_header of(const Block& b) {
    k_header h{b.d, b.dmin, {}};
    std::memcpy(h.scales, b.scales, sizeof h.scales);
    return h;
  }
};

struct q2_k_header {
  std::uint8_t scales[16];
  half d, dmin;
  static q2_k_header of(const formats::q2_k::block& b) {
    q2_k_header h{{}, b.d, b.dmin};
    std::memcpy(h.scales, b.scales, sizeof h.scales);
    return h;
  }
};

struct q3_k_header {
  std::uint8_t scales[12];
  half d;
  static q3_k_header of(const formats::q3_k::block& b) {
    q3_k_header h{{}, b.d};
    std::memcpy(h.scales, b.scales, sizeof h.scales);
    return h;
  }
};

struct q6_k_header {
  std::int8_t scales[16];
  half d;
  static q6_k_header of(const formats::q6_k::block& b) {
    q6_k_header h{{}, b.d};
    std::memcpy(h.scales, b.scales, sizeof h.scales);
    return h;
  }
};

struct iq4_xs_header {
  half d;
  std::uint16_t scales_h;
  std::uint8_t scales_l[4];
  static iq4_xs_header of(const formats::iq4_xs::block& b) {
    iq4_xs_header h{b.d, b.scales_h, {}};
    std::memcpy(h.scales_l, b.scales_l, sizeof h.scales_l);
    return h;
  }
};

// Of a format that has no line below: the scales themselves.
template <block_format F>
struct maps_header {
  affine maps[F::block_size / F::group_size];
  static maps_header of(const typename F::block& b) {
    maps_header h;
    for (int g = 0; g < F::block_size / F::group_size; ++g) h.maps[g] = F::scale(b, g);
    return h;
  }
};

template <typename F>
struct header_choice {
  using type = maps_header<F>;
};
// clang-format off
template <> struct header_choice<formats::q4_0> { using type = d_header; };
template <> struct header_choice<formats::q4_1> { using type = d_m_header; };
template <> struct header_choice<formats::q5_0> { using type = d_header; };
template <> struct header_choice<formats::q5_1> { using type = d_m_header; };
template <> struct header_choice<formats::q8_0> { using type = d_header; };
template <> struct header_choice<formats::q2_k> { using type = q2_k_header; };
template <> struct header_choice<formats::q3_k> { using type = q3_k_header; };
template <> struct header_choice<formats::q4_k> { using type = k_header; };
template <> struct header_choice<formats::q5_k> { using type = k_header; };
template <> struct header_choice<formats::q6_k> { using type = q6_k_header; };
template <> struct header_choice<formats::iq4_nl> { using type = d_header; };
template <> struct header_choice<formats::iq4_xs> { using type = iq4_xs_header; };
template <> struct header_choice<formats::mxfp4> { using type = e_header; };
template <> struct header_choice<formats::tq1_0> { using type = d_header; };
template <> struct header_choice<formats::tq2_0> { using type = d_header; };
// clang-format on

template <block_format F>
using block_header = typename header_choice<F>::type;

}  // namespace nibble::inline NIBBLE_ABI::kernels

// The only table of type mixes. Its choices are facts about llama.cpp's quantiser (src/
// llama-quant.cpp): whoever asks for "q4_k_m" gets the tensors' types that such files have.
#pragma once

#include <array>
#include <cstdint>
#include <nibble/base/config.hpp>
#include <nibble/formats/list.hpp>
#include <nibble/quantise/mix.hpp>
#include <optional>
#include <string_view>

namespace nibble::inline NIBBLE_ABI::mixes {

// What a tensor is for, by its name.
enum class role : std::uint8_t {
  output,           // output.weight, or the embedding where there is none
  token_embedding,  // a lookup only
  attn_k,
  attn_v,  // and those that hold values with others: attn_qkv, attn_kv_b
  attn_output,
  ffn_down,  // of experts, too
  other,
};

// Which layers a rule holds for, by a tensor's place i among the n of its role.
enum class place : std::uint8_t {
  all,
  first_2,
  first_4,
  first_16th,  // i < n / 16
  first_8th,   // i < n / 8
  // The first and the last eighth, and every third between them: errors early and late in the
  // model cost the most.
  ends_and_thirds,
};

// What else must hold.
enum class given : std::uint8_t {
  always,
  grouped_4,  // at least 4 query heads share keys and values, so these are small
  experts_8,  // exactly 8 experts (Mixtral): attention is a small part of the model
  not_experts_8,
  importance,
  no_importance,
  several,  // the tensor holds several matrices: experts
};

struct rule {
  role what = role::other;
  place where = place::all;
  given when = given::always;
  std::optional<format_id> to = {};
};

struct mix {
  type_mix facts;
  std::array<rule, 6> rules;  // the first that fits decides; those after the last have no format
};

// clang-format off
inline constexpr format_id f32 = id_of<formats::f32>, f16 = id_of<formats::f16>,
    bf16 = id_of<formats::bf16>, q4_0 = id_of<formats::q4_0>, q4_1 = id_of<formats::q4_1>,
    q5_0 = id_of<formats::q5_0>, q5_1 = id_of<formats::q5_1>, q8_0 = id_of<formats::q8_0>,
    q2_k = id_of<formats::q2_k>, q3_k = id_of<formats::q3_k>, q4_k = id_of<formats::q4_k>,
    q5_k = id_of<formats::q5_k>, q6_k = id_of<formats::q6_k>, iq4_nl = id_of<formats::iq4_nl>,
    iq4_xs = id_of<formats::iq4_xs>, mxfp4 = id_of<formats::mxfp4>, tq1_0 = id_of<formats::tq1_0>,
    tq2_0 = id_of<formats::tq2_0>;

inline constexpr rule eight_experts_output{role::attn_output, place::all, given::experts_8, q5_k};

// general.file_type as llama.h numbers LLAMA_FTYPE_*.
inline constexpr std::array table{
    mix{{"f32", f32, 0, "32-bit floats"}, {}},
    mix{{"f16", f16, 1, "16-bit floats"}, {}},
    mix{{"bf16", bf16, 32, "16-bit floats with the range of 32 bits"}, {}},
    mix{{"q8_0", q8_0, 7, "8 bits"}, {}},
    mix{{"q6_k", q6_k, 18, "6 bits"}, {}},
    mix{{"q5_k_m", q5_k, 17, "5 bits, some tensors 6"}, {{
        {role::attn_v, place::ends_and_thirds, given::always, q6_k},
        {role::ffn_down, place::ends_and_thirds, given::always, q6_k}}}},
    mix{{"q5_k_s", q5_k, 16, "5 bits"}, {}},
    mix{{"q5_1", q5_1, 9, "5 bits, scale and offset for 32 weights"}, {}},
    mix{{"q5_0", q5_0, 8, "5 bits, one scale for 32 weights"}, {{
        {role::ffn_down, place::first_8th, given::importance, q5_1}}}},
    mix{{"q4_k_m", q4_k, 15, "4 bits, some tensors 6; what most people use"}, {{
        {role::attn_v, place::ends_and_thirds, given::always, q6_k},
        {role::ffn_down, place::ends_and_thirds, given::always, q6_k},
        eight_experts_output}}},
    mix{{"q4_k_s", q4_k, 14, "4 bits, few tensors 5"}, {{
        {role::attn_v, place::first_4, given::always, q5_k},
        {role::ffn_down, place::first_8th, given::always, q5_k},
        eight_experts_output}}},
    mix{{"q4_1", q4_1, 3, "4 bits, scale and offset for 32 weights"}, {}},
    mix{{"q4_0", q4_0, 2, "4 bits, one scale for 32 weights"}, {{
        {role::ffn_down, place::first_8th, given::importance, q4_1}}}},
    mix{{"iq4_nl", iq4_nl, 25, "4 bits by a table, 32 weights a block"}, {{
        {role::attn_v, place::all, given::grouped_4, q5_k},
        {role::ffn_down, place::first_8th, given::no_importance, q5_k},
        eight_experts_output}}},
    mix{{"iq4_xs", iq4_xs, 30, "4 bits by a table, 256 weights a block"}, {{
        {role::attn_v, place::all, given::grouped_4, q5_k},
        {role::ffn_down, place::first_8th, given::no_importance, q5_k},
        eight_experts_output}}},
    mix{{"mxfp4_moe", q8_0, 38, "experts in mxfp4, the rest in 8 bits"}, {{
        {role::ffn_down, place::all, given::several, mxfp4},
        {role::other, place::all, given::several, mxfp4}}}},
    mix{{"mxfp4", mxfp4, 38, "4-bit floats, one exponent for 32 weights"}, {}},
    mix{{"q3_k_l", q3_k, 13, "3 bits, some tensors 5"}, {{
        {role::attn_v, place::all, given::always, q5_k},
        {role::ffn_down, place::all, given::always, q5_k},
        {role::attn_output, place::all, given::not_experts_8, q5_k}}}},
    mix{{"q3_k_m", q3_k, 12, "3 bits, some tensors 4 and 5"}, {{
        {role::attn_v, place::first_2, given::always, q5_k},
        {role::attn_v, place::all, given::always, q4_k},
        {role::ffn_down, place::first_16th, given::always, q5_k},
        {role::ffn_down, place::all, given::always, q4_k},
        eight_experts_output,
        {role::attn_output, place::all, given::always, q4_k}}}},
    mix{{"q3_k_s", q3_k, 11, "3 bits"}, {{eight_experts_output}}},
    mix{{"q2_k", q2_k, 10, "2 bits, some tensors 3 and 4"}, {{
        {role::attn_v, place::all, given::grouped_4, q4_k},
        {role::attn_v, place::all, given::always, q3_k},
        {role::ffn_down, place::all, given::always, q3_k},
        eight_experts_output,
        {role::attn_output, place::all, given::always, q3_k}}}},
    mix{{"q2_k_s", q2_k, 21, "2 bits, few tensors 4"}, {{
        {role::attn_v, place::all, given::grouped_4, q4_k},
        {role::ffn_down, place::first_8th, given::always, q4_k}}}},
    mix{{"tq2_0", tq2_0, 37, "three values in 2 bits, for models trained so"}, {{
        {role::token_embedding, place::all, given::always, q4_k}}}},
    mix{{"tq1_0", tq1_0, 36, "three values in 1.7 bits, for models trained so"}, {{
        {role::token_embedding, place::all, given::always, q4_k}}}},
};
// clang-format on

// Names that people use for the middle one of several.
struct alias {
  std::string_view name, stands_for;
};
inline constexpr std::array aliases{alias{"q3_k", "q3_k_m"}, alias{"q4_k", "q4_k_m"},
                                    alias{"q5_k", "q5_k_m"}};

// Rows that do not divide into a format's blocks get another one of about its size.
struct fallback {
  format_id from, to;
};
inline constexpr std::array fallbacks{
    fallback{q2_k, iq4_nl}, fallback{q3_k, iq4_nl}, fallback{q4_k, q5_0},  fallback{q5_k, q5_1},
    fallback{q6_k, q8_0},   fallback{tq1_0, q4_0},  fallback{tq2_0, q4_0}, fallback{iq4_xs, iq4_nl},
};

// Parts of names: tensors that have one stay as they are. They are small, and matter much.
inline constexpr std::string_view left_alone[] = {
    "_norm.weight",         "ffn_gate_inp.weight", "altup",          "laurel",
    "per_layer_model_proj", "ssm_conv1d",          "shortconv.conv", "time_mix_first",
    "time_mix_w0",          "time_mix_w1",         "time_mix_w2",    "time_mix_v0",
    "time_mix_v1",          "time_mix_v2",         "time_mix_a0",    "time_mix_a1",
    "time_mix_a2",          "time_mix_g1",         "time_mix_g2",    "time_mix_decay_w",
    "time_mix_lerp_fused",  "attn_rel_b.weight",   "position_embd",  "token_types.weight",
};

}  // namespace nibble::inline NIBBLE_ABI::mixes

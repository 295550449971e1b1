// Fills the kernel table of one instruction set; all that kernels/cpu/isa_<name>.cpp needs.
#pragma once

#include <nibble/formats/list.hpp>

#include "cpu/attend.hpp"
#include "cpu/elementwise.hpp"
#include "cpu/kernel_table.hpp"
#include "cpu/kv_rows.hpp"
#include "cpu/matmul_f32.hpp"
#include "cpu/matmul_q8_tile.hpp"

namespace nibble::inline NIBBLE_ABI::kernels {

template <typename Arch, typename F>
constexpr void add_format(cpu::kernel_table& table) {
  if constexpr (block_format<F>) {
    table.matmul_q8[index_of<F>] = matmul_q8<Arch, F>;
    table.pack[index_of<F>] = pack<Arch, F>;
    table.unpack_row[index_of<F>] = unpack_row<Arch, F>;
  }
  table.matmul_f32[index_of<F>] = matmul_f32<Arch, F>;
  table.decode[index_of<F>] = decode<Arch, F>;
}

template <typename Arch, int... Types>
constexpr void add_row_types(cpu::kernel_table& table, std::integer_sequence<int, Types...>) {
  ((table.store_row[Types] = store_row<row_type{Types}>), ...);
  ((table.load_row[Types] = load_row<Arch, row_type{Types}>), ...);
}

template <typename Arch, typename... Fs>
constexpr cpu::kernel_table make_table(const char* isa, type_list<Fs...>) {
  static_assert(sizeof...(Fs) <= cpu::max_formats);
  cpu::kernel_table table = {};
  table.isa = isa;
  table.strip_rows = strip_rows<Arch>;
  (add_format<Arch, Fs>(table), ...);
  table.quantise_q8 = quantise_q8<Arch>;
  table.rms_norm = rms_norm<Arch>;
  table.rope_norm = rope_norm<Arch>;
  table.rope_neox = rope_neox<Arch>;
  // in the order of gate_kind (device/steps.hpp)
  table.gate[0] = gate<Arch, silu>;
  table.gate[1] = gate<Arch, gelu_tanh>;
  table.gate[2] = gate<Arch, relu_squared>;
  table.gate[3] = gate<Arch, swiglu_clamped>;
  table.add_scaled = add_scaled<Arch>;
  add_row_types<Arch>(table, std::make_integer_sequence<int, cpu::kv_types>{});
  table.hadamard = hadamard;
  table.attend = attend<Arch>;
  table.join_segments = join_segments<Arch>;
  return table;
}

}  // namespace nibble::inline NIBBLE_ABI::kernels

// Defines cpu::kernels_<isa>() from the vectors kernels::<isa>.
#define NIBBLE_DEFINE_KERNELS(isa)                                                                \
  const nibble::cpu::kernel_table& nibble::cpu::kernels_##isa() {                                 \
    static constexpr kernel_table table = kernels::make_table<kernels::isa>(#isa, all_formats{}); \
    return table;                                                                                 \
  }

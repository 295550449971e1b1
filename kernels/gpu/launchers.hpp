// The launchers of kernels, as table.cpp puts them into a kernel_table. Each family has a file
// launch_<family>.cpp, compiled for each kind of device.
#pragma once

#include <nibble/base/config.hpp>

#include "gpu/kernel_table.hpp"

namespace nibble::inline NIBBLE_ABI::kernels {

// launch_rows.cpp
void launch_quantise(const gpu::launch_target& target, const gpu::quantise_args& args);
void launch_transform(const gpu::launch_target& target, const gpu::transform_args& args);
void launch_embed(const gpu::launch_target& target, const gpu::embed_args& args);
void launch_add(const gpu::launch_target& target, const gpu::add_args& args);
void launch_combine(const gpu::launch_target& target, const gpu::combine_args& args);
void launch_select(const gpu::launch_target& target, const gpu::select_args& args);
void launch_softcap(const gpu::launch_target& target, const gpu::softcap_args& args);

// launch_route.cpp
void launch_route(const gpu::launch_target& target, const gpu::route_args& args);
void launch_group_pairs(const gpu::launch_target& target, const gpu::group_pairs_args& args);

// launch_matvec.cpp
bool matvec_fits(const gpu::device_facts& facts, std::int32_t tokens, std::int64_t columns);
void launch_matvec(const gpu::launch_target& target, const gpu::matvec_args& args);

// launch_matmul.cpp
void launch_matmul(const gpu::launch_target& target, const gpu::matmul_args& args);
void launch_expert_matmul(const gpu::launch_target& target, const gpu::expert_args& args);

// launch_matmul_f32.cpp
void launch_matmul_f32(const gpu::launch_target& target, const gpu::matmul_f32_args& args);

// launch_attend.cpp
void launch_rope(const gpu::launch_target& target, const gpu::rope_args& args);
void launch_attend_prepare(const gpu::launch_target& target, const gpu::attend_prepare_args& args);
void launch_attend(const gpu::launch_target& target, const gpu::attend_args& args);

}  // namespace nibble::inline NIBBLE_ABI::kernels

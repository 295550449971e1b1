// From steps of a recording to launches of a GPU.
#pragma once

#include <cstdint>
#include <nibble/base/config.hpp>
#include <nibble/device/recording.hpp>
#include <optional>
#include <vector>

#include "device/gpu_program.hpp"
#include "device/gpu_program_memory.hpp"

namespace nibble::inline NIBBLE_ABI {

class gpu_step_maker {
 public:
  gpu_step_maker(const recording& steps, activation_type activations,
                 const gpu::device_facts& facts, const gpu_program_memory& memory)
      : recording_(steps), activations_(activations), facts_(facts), memory_(memory) {}

  std::vector<gpu_launch> make_all();

 private:
  // Where a value lies, and how many rows it has in a run.
  struct buffer {
    float* data = nullptr;
    std::int64_t width = 0;
    value_rows rows = value_rows::per_token;
  };
  buffer at(value v) const;
  std::int32_t* integers(value v) const;

  void make(const embed_step& s);
  void make(const norm_step& s);
  void make(const matmul_step& s);
  void make(const attend_step& s);
  void make(const gate_step& s);
  void make(const add_step& s);
  void make(const route_step& s);
  void make(const expert_matmul_step& s);
  void make(const combine_step& s);
  void make(const select_step& s);
  void make(const softcap_step& s);

  // What a product's rows are made from: the value itself, its norm, or a gate that nobody else
  // reads.
  gpu::input_rows input_of(value in, const std::optional<rms_norm>& norm, std::int64_t columns);

  void make_q8_product(const gpu::input_rows& in, value_rows rows,
                       const std::vector<gpu::product>& products, bool accumulate);
  void make_f32_product(const gpu::input_rows& in, value_rows rows,
                        const std::vector<gpu::product>& products, bool accumulate);
  gpu::product product_of(const linear& l) const;
  gpu::attend_shape shape_of(const attention_spec& a) const;
  void make_rope_tables();
  void add(const char* name, std::function<void(const gpu_run&)> run) {
    launches_.push_back({name, std::move(run)});
  }

  const recording& recording_;
  activation_type activations_;
  const gpu::device_facts& facts_;
  const gpu_program_memory& memory_;
  std::vector<gpu_launch> launches_;
  std::vector<bool> taken_gates_;       // by step
  std::size_t index_ = 0;               // of the step that is being made
  const gate_step* waiting_ = nullptr;  // a gate that the product after it takes in
};

}  // namespace nibble::inline NIBBLE_ABI

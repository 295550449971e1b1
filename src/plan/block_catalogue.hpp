// The blocks of a model by what they are made of. Most layers of a model are alike, so what a block
// takes on a device is asked once for each kind of block, however many there are.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <nibble/base/config.hpp>
#include <nibble/device/backend.hpp>
#include <nibble/model/arch.hpp>
#include <optional>
#include <span>
#include <tuple>
#include <vector>

namespace nibble::inline NIBBLE_ABI {

class block_catalogue {
 public:
  // A tensor that a block reads.
  struct tensor {
    std::size_t stored = 0;  // index of its format and shape
    bool expert = false;     // routed ones: a token reads its share
    friend auto operator<=>(const tensor&, const tensor&) = default;
  };
  // Blocks with the same steps over weights of the same formats and shapes.
  struct kind {
    block_kind what = block_kind::embedding;
    std::size_t first = 0;        // the first such block
    std::vector<tensor> tensors;  // in the order of the model's needs
    recording steps;              // of one alone, as if its layer were the first
  };

  // Both are referred to.
  block_catalogue(const model_definition& model, std::span<const device_sizes* const> devices);

  const model_definition& model() const noexcept { return model_; }
  std::span<const device_sizes* const> devices() const noexcept { return devices_; }
  const std::vector<kind>& kinds() const noexcept { return kinds_; }
  std::size_t kind_of(std::size_t block) const { return kind_of_[block]; }
  const kind& of(std::size_t block) const { return kinds_[kind_of_[block]]; }

  // Of tensor::stored: as a device is given it, without data, and whether it is converted to
  // floats.
  const tensor_view& view(std::size_t stored) const { return stored_[stored].view; }
  bool as_float(std::size_t stored) const { return stored_[stored].as_float; }
  // The table of the embedding; its head's matrix, too, where the model is tied.
  std::optional<std::size_t> table() const noexcept { return table_; }
  bool tied() const noexcept { return tied_; }

  // As the device says, each asked once.
  std::uint64_t weight_bytes(std::size_t stored, std::size_t device);
  // Of the matrix of one expert of those.
  std::uint64_t expert_bytes(std::size_t stored, std::size_t device);
  // Whether a tensor passes through the device's ring, or is read from there by experts.
  bool is_streamed(std::size_t stored, std::size_t device) const;
  bool is_on_demand(const tensor& t, std::size_t device) const {
    return t.expert && is_streamed(t.stored, device);
  }
  // Of a program of blocks [first, last).
  workspace_size workspace(std::size_t first, std::size_t last, std::size_t device,
                           program_limits limits);

 private:
  struct stored_tensor {
    tensor_view view;
    bool as_float = false, is_kept = false;
    weight stand_in;  // has format and shape, and data that nobody reads
    std::vector<std::optional<std::uint64_t>> bytes, of_one;  // by device: all, one expert
  };
  using program_key =
      std::tuple<std::size_t, std::int32_t, std::int32_t, std::int32_t, std::vector<std::size_t>>;

  std::vector<std::vector<tensor>> find_tensors();
  void find_kinds(const std::vector<std::vector<tensor>>& tensors);

  const model_definition& model_;
  std::span<const device_sizes* const> devices_;
  std::deque<stored_tensor> stored_;  // the table below points into it
  weight_table weights_;
  std::vector<kind> kinds_;
  std::vector<std::size_t> kind_of_;  // by block
  std::optional<std::size_t> table_;
  bool tied_;
  std::map<program_key, workspace_size> workspaces_;
};

}  // namespace nibble::inline NIBBLE_ABI

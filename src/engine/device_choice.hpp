// Which devices a model is planned for, and opening those that it uses.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <nibble/base/config.hpp>
#include <nibble/device/probe.hpp>
#include <nibble/engine/model.hpp>
#include <string>
#include <vector>

namespace nibble::inline NIBBLE_ABI {

class device_choice {
 public:
  // Those that the options name, of these. Throws error (invalid_argument) that says which there
  // are.
  device_choice(const devices::hardware& found, const model_options& options);

  // Throws error as plan(). Reasons say which devices cannot be used. What does not fit into memory
  // may stay in the model's file, if it is in one.
  placement plan(const gguf::file& file, const model_definition& model);
  // The devices of a plan, which loses those that it does not use.
  std::vector<std::unique_ptr<backend>> open_used(placement& plan) const;
  // From now on at most so many bytes are planned on the device of this name, and not more than is
  // free there now.
  void limit(const std::string& name, std::uint64_t bytes);

 private:
  struct chosen {
    device_info info;
    std::unique_ptr<device_sizes> sizes;
    std::optional<std::uint64_t> limit;
  };

  placement plan_once(const model_definition& model) const;
  void add_disk();
  bool has_kind(device_kind kind) const;
  // Measures how fast the file's disk is, which is not kept: that takes little time, and a file may
  // lie anywhere.
  void time_disk(const gguf::file& file);
  device_speed speed_of(const device_info& info, const model_definition& model) const;
  std::unique_ptr<backend> open(const device_info& info) const;

  const devices::hardware& found_;
  const model_options& options_;
  std::vector<chosen> devices_;
  double disk_bytes_per_second_ = 0;  // 0: not measured
};

}  // namespace nibble::inline NIBBLE_ABI

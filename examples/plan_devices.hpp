// Devices and amounts of memory as nibble-plan's command line names them.
#pragma once

#include <memory>
#include <nibble/device/sizes.hpp>
#include <nibble/device/speed.hpp>
#include <nibble/nibble.hpp>
#include <span>
#include <string>
#include <vector>

namespace plan_devices {

// Of the option --device.
std::string help();

// For options' checks: what is wrong with the text, or "".
std::string is_context(const std::string& text);
std::string is_pin(const std::string& text);

// "attention:0-31=0"
nibble::pinned_blocks pin_of(const std::string& text);

class devices {
 public:
  // Descriptions, and ids of devices of this machine; without any: all of those.
  devices(const std::vector<std::string>& descriptions, const nibble::model_definition& model,
          bool measure);

  // This machine's disk, from which blocks are read that fit into no memory.
  void add_disk(double bytes_per_second = nibble::typical_disk_bytes_per_second);

  std::span<const nibble::offered_device> offers() const { return offers_; }
  const std::vector<std::string>& notes() const { return notes_; }

 private:
  static const nibble::device_info& find(const nibble::devices::hardware& found,
                                         const std::string& id);
  void add_found(const nibble::devices::hardware& found, const nibble::device_info& info,
                 const nibble::speed_options& speeds);
  void describe(const std::string& text);
  void add(std::unique_ptr<nibble::device_sizes> sizes, nibble::device_speed speed);

  std::vector<std::unique_ptr<nibble::device_sizes>> sizes_;
  std::vector<nibble::offered_device> offers_;
  std::vector<std::string> notes_;
};

}  // namespace plan_devices

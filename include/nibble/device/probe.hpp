// What this machine has to compute with.
#pragma once

#include <map>
#include <memory>
#include <nibble/base/config.hpp>
#include <nibble/device/cpu.hpp>
#include <nibble/device/gpu.hpp>
#include <nibble/device/speed.hpp>
#include <string>
#include <vector>

namespace nibble::inline NIBBLE_ABI::devices {

struct hardware {
  std::vector<device_info> all;    // GPUs first, those with most free memory before the others
  std::vector<std::string> notes;  // why there are no more: a sentence for each kind of GPU
  std::shared_ptr<const gpu_modules> modules;
  // Of devices whose speed the caller knows, by id; others are looked up (find_speed).
  std::map<std::string, device_speed> speeds;
};

// Finds the CPU and all GPUs that can be used. Nothing is changed and no memory is taken; a machine
// without a GPU pays for looking whether there is a module. Never throws for a GPU that does not
// work: that becomes a note.
NIBBLE_API hardware probe(const cpu_options& cpu = {});

}  // namespace nibble::inline NIBBLE_ABI::devices

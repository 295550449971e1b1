// Measured speeds kept from one process to the next: a small text file for each device.
//
//   nibble device speed 1
//   key <what the numbers are of>
//   step <seconds> <seconds a value>
//   attend <seconds>                    and run; noise <ratio>
//   link <bytes a second> <seconds>
//   format <name> <bytes a second> <multiply-adds a second>
//   kv <name> <bytes a second> <multiply-adds a second> <those of prompts>
//   end <fingerprint of all before it>
#pragma once

#include <filesystem>
#include <nibble/base/config.hpp>
#include <nibble/device/backend.hpp>
#include <nibble/device/speed.hpp>
#include <optional>
#include <string>

namespace nibble::inline NIBBLE_ABI {

// What decides a speed, in one line: version, processor, driver, device, activations.
std::string speed_key(const device_info& device, activation_type activations,
                      const std::filesystem::path& root = "/");

// The folder of the files, which need not exist; `given` if it is not empty. Empty: there is none.
std::filesystem::path speed_folder(const std::filesystem::path& given);

std::string speed_to_text(const std::string& key, const device_speed& speed);
// Nothing for any text that is not whole and of this key.
std::optional<device_speed> speed_from_text(const std::string& text, const std::string& key);

// None if there is no such file, or if it is anything but what store_speed() writes.
std::optional<device_speed> load_speed(const std::filesystem::path& folder, const std::string& key);
// Replaces the file at once, so that others find the old or the new one; nothing if it cannot.
void store_speed(const std::filesystem::path& folder, const std::string& key,
                 const device_speed& speed);

// The file of a key.
std::filesystem::path speed_path(const std::filesystem::path& folder, const std::string& key);

}  // namespace nibble::inline NIBBLE_ABI

// Shows what nibble finds on this machine to compute with.
#include <iomanip>
#include <iostream>
#include <nibble/nibble.hpp>
#include <nlohmann/json.hpp>
#include <optional>

#include "common.hpp"
#include "output.hpp"

namespace {

const char* name_of(nibble::device_kind kind) {
  switch (kind) {
    case nibble::device_kind::cpu:
      return "CPU";
    case nibble::device_kind::cuda:
      return "CUDA";
    case nibble::device_kind::hip:
      return "HIP";
    case nibble::device_kind::emulated:
      return "emulated";
  }
  return "";
}

void print(const nibble::devices::hardware& found) {
  std::cout << std::left << std::setw(12) << "id" << std::setw(10) << "kind" << std::right
            << std::setw(12) << "memory" << std::setw(12) << "free"
            << "  name\n";
  for (const nibble::device_info& d : found.all) {
    std::cout << std::left << std::setw(12) << d.id << std::setw(10) << name_of(d.kind)
              << std::right << std::setw(12) << nibble::to_text(d.total_bytes) << std::setw(12)
              << nibble::to_text(d.free_bytes) << "  " << d.name << '\n';
  }
  for (const std::string& note : found.notes) std::cout << "- " << note << '\n';
}

nlohmann::ordered_json to_json(const nibble::devices::hardware& found) {
  nlohmann::ordered_json devices = nlohmann::ordered_json::array();
  for (const nibble::device_info& d : found.all) {
    devices.push_back({{"id", d.id},
                       {"kind", name_of(d.kind)},
                       {"name", d.name},
                       {"total_bytes", d.total_bytes},
                       {"free_bytes", d.free_bytes}});
  }
  return {{"devices", devices}, {"notes", found.notes}};
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{"Lists the devices that models can run on, and says why others cannot be used."};
  std::string json;
  common::add_json(app, json, "also write the list to this file as JSON");
  if (const auto status = common::parse(app, argc, argv)) return *status;
  return common::run([&] {
    std::optional<common::output> file;
    if (!json.empty()) file.emplace(json, std::vector<std::filesystem::path>{});
    const nibble::devices::hardware found = nibble::devices::probe();
    print(found);
    if (!file) return;
    file->stream() << to_json(found).dump(1, ' ', false, nlohmann::json::error_handler_t::replace)
                   << '\n';
    file->finish();
  });
}

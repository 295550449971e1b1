// Shows what nibble finds on this machine to compute with, and how fast it is.
#include <algorithm>
#include <iomanip>
#include <iostream>
#include <map>
#include <nibble/formats/list.hpp>
#include <nibble/nibble.hpp>
#include <nlohmann/json.hpp>
#include <optional>
#include <sstream>
#include <vector>

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
    case nibble::device_kind::disk:
      return "disk";
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

// By the ids of devices.
using speeds = std::map<std::string, nibble::device_speed>;

// A device that cannot be measured gets a note.
speeds measure(nibble::devices::hardware& found, const nibble::speed_options& options) {
  speeds all;
  for (const nibble::device_info& d : found.all) {
    std::cerr << "measuring " << d.id << '\n';
    const auto open = [&] {
      return d.kind == nibble::device_kind::cpu ? nibble::make_cpu_backend()
                                                : found.modules->open(d.id);
    };
    try {
      all[d.id] = nibble::find_speed(d, open, options);
    } catch (const nibble::error& e) {
      found.notes.push_back(nibble::concat(d.id, " was not measured: ", e.what()));
    }
  }
  return all;
}

// "12.3 GB/s"
std::string rate(double x, const char* unit) {
  std::ostringstream out;
  out << std::fixed << std::setprecision(1) << x / 1e9 << ' ' << unit;
  return out.str();
}
std::string micros(double seconds) {
  std::ostringstream out;
  out << std::fixed << std::setprecision(1) << seconds * 1e6 << " us";
  return out.str();
}

void print_row(const std::string& name, std::initializer_list<std::string> columns) {
  std::cout << "  " << std::left << std::setw(12) << name << std::right;
  for (const std::string& c : columns) std::cout << std::setw(16) << c;
  std::cout << '\n';
}

void print(const std::string& id, const nibble::device_speed& speed) {
  std::cout << '\n' << id << '\n';
  print_row("weights", {"one token", "prompts"});
  for (const nibble::format_speed& s : speed.formats) {
    print_row(nibble::format_name(s.format),
              {rate(s.bytes_per_second, "GB/s"), rate(s.macs_per_second, "GMAC/s")});
  }
  print_row("attention", {"cache read", "of one token", "of prompts"});
  for (const nibble::kv_speed& s : speed.kv) {
    print_row(std::string(nibble::info_of(s.type).name),
              {rate(s.bytes_per_second, "GB/s"), rate(s.macs_per_second, "GMAC/s"),
               rate(s.prompt_macs_per_second, "GMAC/s")});
  }
  print_row("fixed", {"product", "and 1000 values", "attention", "run"});
  print_row("", {micros(speed.step_seconds), micros(1000 * speed.step_value_seconds),
                 micros(speed.attend_seconds), micros(speed.run_seconds)});
  if (speed.link_bytes_per_second > 0) {
    print_row("link", {rate(speed.link_bytes_per_second, "GB/s"), micros(speed.link_seconds)});
  }
  if (speed.noise < 1.3) return;
  std::cout << "  Runs differed: other programs seem to be busy. Measure again without them.\n";
}

nlohmann::ordered_json to_json(const nibble::device_speed& speed) {
  nlohmann::ordered_json formats = nlohmann::ordered_json::array(), kv = formats;
  for (const nibble::format_speed& s : speed.formats) {
    formats.push_back({{"format", nibble::format_name(s.format)},
                       {"bytes_per_second", s.bytes_per_second},
                       {"macs_per_second", s.macs_per_second}});
  }
  for (const nibble::kv_speed& s : speed.kv) {
    kv.push_back({{"type", nibble::info_of(s.type).name},
                  {"bytes_per_second", s.bytes_per_second},
                  {"macs_per_second", s.macs_per_second},
                  {"prompt_macs_per_second", s.prompt_macs_per_second}});
  }
  return {{"formats", formats},
          {"kv", kv},
          {"step_seconds", speed.step_seconds},
          {"step_value_seconds", speed.step_value_seconds},
          {"attend_seconds", speed.attend_seconds},
          {"run_seconds", speed.run_seconds},
          {"noise", speed.noise},
          {"link_bytes_per_second", speed.link_bytes_per_second},
          {"link_seconds", speed.link_seconds}};
}

// The middle of several turns, in bytes a second.
double measure_disk(const std::string& model) {
  std::cerr << "measuring the disk of " << model << '\n';
  const nibble::gguf::file file(model, {.header_only = true});
  std::vector<double> rates;
  for (int i = 0; i < 3; ++i) rates.push_back(nibble::measure_disk(file));
  std::sort(rates.begin(), rates.end());
  return rates[1];
}

nlohmann::ordered_json to_json(const nibble::devices::hardware& found, const speeds& measured,
                               std::optional<double> disk) {
  nlohmann::ordered_json devices = nlohmann::ordered_json::array();
  for (const nibble::device_info& d : found.all) {
    devices.push_back({{"id", d.id},
                       {"kind", name_of(d.kind)},
                       {"name", d.name},
                       {"total_bytes", d.total_bytes},
                       {"free_bytes", d.free_bytes}});
    const auto speed = measured.find(d.id);
    if (speed != measured.end()) devices.back()["speed"] = to_json(speed->second);
  }
  nlohmann::ordered_json all = {{"devices", devices}, {"notes", found.notes}};
  if (disk) all["disk_bytes_per_second"] = *disk;
  return all;
}

// What is wrong with the name of a format.
std::string is_format(const std::string& name) {
  if (nibble::find_format(name)) return "";
  return "'" + nibble::gguf::printable(name) + "' is not a format; formats are " +
         nibble::format_names();
}

struct devices_options {
  std::string json;
  bool measure = false, no_cache = false;
  std::string disk;  // a model's file
  std::vector<std::string> formats;
  std::vector<std::string> kv_types;

  void add_to(CLI::App& app) {
    common::add_json(app, json, "also write the list to this file as JSON");
    CLI::Option* const wanted = app.add_flag(
        "--measure", measure,
        "also measure how fast each device is, in about a second, with nothing else running: "
        "bytes of weights a second for one token, multiply-adds a second for prompts, attention, "
        "what a step and a run take at least, the link. The figures are kept for planning, in "
        "NIBBLE_CACHE_DIR or the user's cache folder");
    app.add_option("--formats", formats, "of weights, q4_0,q6_k (default: those most in use)")
        ->delimiter(',')
        ->check(is_format)
        ->needs(wanted);
    app.add_option("--kv", kv_types, "types of keys and values, f16,q8 (default: f16)")
        ->delimiter(',')
        ->check(CLI::IsMember(kv_names()))
        ->needs(wanted);
    app.add_option("--disk", disk,
                   "also measure how fast this model's file is read from its disk, as it would be "
                   "if it did not fit into memory")
        ->type_name("MODEL")
        ->check(CLI::ExistingFile);
    app.add_flag("--no-cache", no_cache, "do not keep the figures")->needs(wanted);
  }

  nibble::speed_options speed() const {
    nibble::speed_options out{.cache = !no_cache, .anew = true};
    for (const std::string& f : formats) out.plan.formats.push_back(*nibble::find_format(f));
    if (!kv_types.empty()) out.plan.kv_types.clear();
    for (const std::string& t : kv_types) out.plan.kv_types.push_back(*nibble::find_kv_type(t));
    return out;
  }

 private:
  static std::vector<std::string> kv_names() {
    std::vector<std::string> names;
    for (const auto& info : nibble::all_kv_types) names.emplace_back(info.name);
    return names;
  }
};

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{"Lists the devices that models can run on, and says why others cannot be used."};
  devices_options options;
  options.add_to(app);
  if (const auto status = common::parse(app, argc, argv)) return *status;
  return common::run([&] {
    std::optional<common::output> file;
    if (!options.json.empty()) file.emplace(options.json, std::vector<std::filesystem::path>{});
    nibble::devices::hardware found = nibble::devices::probe();
    const speeds measured = options.measure ? measure(found, options.speed()) : speeds{};
    std::optional<double> disk;
    if (!options.disk.empty()) disk = measure_disk(options.disk);
    print(found);
    for (const auto& [id, speed] : measured) print(id, speed);
    if (disk) {
      std::cout << "\ndisk\n";
      print_row("read", {rate(*disk, "GB/s")});
    }
    if (!file) return;
    file->stream() << to_json(found, measured, disk)
                          .dump(1, ' ', false, nlohmann::json::error_handler_t::replace)
                   << '\n';
    file->finish();
  });
}

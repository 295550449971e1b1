#include "engine/device_choice.hpp"

#include <algorithm>
#include <nibble/base/concat.hpp>
#include <nibble/base/error.hpp>
#include <nibble/device/sizes.hpp>
#include <nibble/device/speed.hpp>
#include <set>
#include <utility>

namespace nibble::inline NIBBLE_ABI {
namespace {

bool is_cpu(const device_info& info) {
  return info.kind == device_kind::cpu;
}
bool is_disk(const device_info& info) {
  return info.kind == device_kind::disk;
}

constexpr std::string_view disk_name = "disk";
// Little even for a disk that turns, and long for a fast one.
constexpr std::uint64_t bytes_to_time_a_disk = std::uint64_t{64} << 20;

std::vector<std::string> names_of(const std::string& list) {
  std::vector<std::string> names;
  for (std::size_t at = 0; at <= list.size();) {
    const std::size_t end = std::min(list.find(',', at), list.size());
    names.push_back(list.substr(at, end - at));
    at = end + 1;
  }
  return names;
}

}  // namespace

device_choice::device_choice(const devices::hardware& found, const model_options& options)
    : found_(found), options_(options) {
  // an observer sees the CPU's products
  const bool only_cpu = options.cpu.observer != nullptr;
  const bool all = options.device == "auto" && !only_cpu;
  std::vector<std::string> names;
  if (all) {
    for (const device_info& info : found.all) names.push_back(info.id);
  } else if (options.device == "auto") {
    names = {"cpu"};
  } else {
    names = names_of(options.device);
  }
  const auto n_disks = std::count(names.begin(), names.end(), disk_name);
  for (const std::string& name : names) {
    if (name == disk_name) continue;
    const auto same = [&](const auto& d) { return d.id == name; };
    const auto info = std::find_if(found.all.begin(), found.all.end(), same);
    const bool twice = std::any_of(devices_.begin(), devices_.end(),
                                   [&](const chosen& d) { return d.info.id == name; });
    if (twice)
      throw error(errc::invalid_argument, concat("the device '", name, "' is named twice"));
    if (only_cpu && name != "cpu") {
      throw error(errc::unsupported,
                  concat("an observer sees products of the CPU only; it cannot look at '", name,
                         "'. Use the device cpu."));
    }
    if (info == found.all.end() && found.modules) found.modules->sizes(name);  // throws, says why
    if (info == found.all.end() || (!is_cpu(*info) && !found.modules)) {
      throw error(errc::invalid_argument, concat("there is no device '", name, "'."));
    }
    devices_.push_back({.info = *info,
                        .sizes = is_cpu(*info)
                                     ? make_cpu_sizes(options.cpu)
                                     : found.modules->sizes(name, {options.cpu.activations}),
                        .limit = {}});
  }
  if (n_disks == 0) return;
  if (n_disks > 1) throw error(errc::invalid_argument, "the device 'disk' is named twice");
  if (!has_kind(device_kind::cpu)) {
    throw error(errc::invalid_argument,
                "the device 'disk' needs the device 'cpu' beside it, which computes with what is "
                "read. Name both: cpu,disk.");
  }
  add_disk();
}

bool device_choice::has_kind(device_kind kind) const {
  return std::any_of(devices_.begin(), devices_.end(),
                     [&](const chosen& d) { return d.info.kind == kind; });
}

void device_choice::add_disk() {
  auto sizes = make_disk_sizes({.cpu = options_.cpu});
  const device_info info = sizes->info();
  devices_.push_back({.info = info, .sizes = std::move(sizes), .limit = {}});
}

std::unique_ptr<backend> device_choice::open(const device_info& info) const {
  if (is_disk(info)) return make_disk_backend({.cpu = options_.cpu});
  if (is_cpu(info)) return make_cpu_backend(options_.cpu);
  return found_.modules->open(info.id, {options_.cpu.activations});
}

device_speed device_choice::speed_of(const device_info& info, const model_definition& model) const {
  if (const auto known = found_.speeds.find(info.id); known != found_.speeds.end()) {
    return known->second;
  }
  if (is_disk(info)) {
    const bool measured = disk_bytes_per_second_ > 0;
    device_speed speed =
        streamed_speed(speed_of(describe_cpu(options_.cpu), model),
                       measured ? disk_bytes_per_second_ : typical_disk_bytes_per_second);
    speed.measured = speed.measured && measured;
    return speed;
  }
  speed_options speeds;
  speeds.activations = options_.cpu.activations;
  speeds.measure = options_.measure_speed;
  speeds.cache = options_.speed_cache;
  std::set<format_id> formats;
  for (const tensor_need& need : model.needs) {
    if (need.found && !need.as_float) formats.insert(need.found->view.format);
  }
  speeds.plan.formats.assign(formats.begin(), formats.end());
  return find_speed(
      info, [&] { return open(info); }, speeds);
}

placement device_choice::plan_once(const model_definition& model) const {
  std::vector<offered_device> offers;
  bool measured = true;
  for (const chosen& d : devices_) {
    offers.push_back({.sizes = d.sizes.get(), .speed = speed_of(d.info, model), .budget = d.limit});
    measured = measured && offers.back().speed.measured;
  }
  placement p = nibble::plan(model, offers, options_.plan);
  // what was not measured would not be worth much
  if (!measured) p.predicted = {};
  if (options_.device == "auto") {
    p.reasons.insert(p.reasons.begin(), found_.notes.begin(), found_.notes.end());
  }
  return p;
}

void device_choice::time_disk(const gguf::file& file) {
  if (!options_.measure_speed || !file.has_data() || file.paths().empty()) return;
  disk_bytes_per_second_ = measure_disk(file, {.cpu = options_.cpu}, bytes_to_time_a_disk);
}

placement device_choice::plan(const gguf::file& file, const model_definition& model) {
  const bool in_files = !file.paths().empty();
  const bool has_disk = has_kind(device_kind::disk);
  const bool could_stream = in_files && has_kind(device_kind::cpu) && !has_disk &&
                            options_.plan.on_shortage != shortage::fail && !options_.cpu.observer;
  if (has_disk) time_disk(file);
  try {
    return plan_once(model);
  } catch (const error& e) {
    if (e.code() != errc::out_of_memory || !could_stream) throw;
    if (options_.device != "auto") {
      throw error(e.code(), concat(e.what(), " With the devices ", options_.device,
                                   ",disk what does not fit would be read from its file."));
    }
  }
  add_disk();
  time_disk(file);
  return plan_once(model);
}

std::vector<std::unique_ptr<backend>> device_choice::open_used(placement& plan) const {
  std::vector<std::unique_ptr<backend>> opened;
  std::vector<device_use> used;
  for (const placed_block& b : plan.blocks) {
    if (b.device >= 0 && static_cast<std::size_t>(b.device) < devices_.size()) continue;
    throw error(errc::invalid_argument, concat(to_text(b.block), " is on device ", b.device,
                                               " of the plan, which has ", devices_.size(), "."));
  }
  for (std::size_t d = 0; d < devices_.size(); ++d) {
    const auto lies_here = [d](const placed_block& b) {
      return static_cast<std::size_t>(b.device) == d;
    };
    if (std::none_of(plan.blocks.begin(), plan.blocks.end(), lies_here)) continue;
    opened.push_back(open(devices_[d].info));
    used.push_back(plan.devices[d]);
  }
  // numbers of devices, without those that are not used
  std::map<std::int32_t, std::int32_t> numbers;
  for (const placed_block& b : plan.blocks) numbers[b.device] = 0;
  std::int32_t next = 0;
  for (auto& [before, now] : numbers) now = next++;
  for (placed_block& b : plan.blocks) b.device = numbers[b.device];
  plan.devices = std::move(used);
  return opened;
}

void device_choice::limit(const std::string& name, std::uint64_t bytes) {
  for (chosen& d : devices_) {
    if (d.info.name != name) continue;
    const std::uint64_t free = open(d.info)->info().free_bytes;
    const auto headroom = options_.plan.headroom_bytes.value_or(
        static_cast<std::uint64_t>(static_cast<double>(free) * options_.plan.headroom));
    const std::uint64_t room = free > headroom ? free - headroom : 0;
    d.limit = free > 0 ? std::min(bytes, room) : bytes;
  }
}

}  // namespace nibble::inline NIBBLE_ABI

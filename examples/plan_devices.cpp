#include "plan_devices.hpp"

#include <algorithm>
#include <charconv>
#include <limits>
#include <nibble/device/speed.hpp>
#include <optional>
#include <set>

#include "amounts.hpp"
#include "common.hpp"

namespace plan_devices {
namespace {

std::vector<std::string> fields_of(const std::string& text, char separator) {
  std::vector<std::string> fields(1);
  for (const char c : text) {
    if (c == separator) {
      fields.emplace_back();
    } else {
      fields.back() += c;
    }
  }
  return fields;
}

std::optional<std::int32_t> whole(const std::string& text) {
  std::int32_t n = 0;
  const char* const end = text.data() + text.size();
  const auto read = std::from_chars(text.data(), end, n);
  if (read.ec != std::errc{} || read.ptr != end || n < 0) return std::nullopt;
  return n;
}

std::string quoted(const std::string& text) {
  return "'" + nibble::gguf::printable(text) + "'";
}

struct description {
  nibble::device_kind kind = nibble::device_kind::cpu;
  double memory = 0;
  nibble::device_sheet sheet;
  int count = 1;
};

// One field behind the memory; false if it means nothing.
bool read_field(const std::string& field, description& d) {
  if (field.starts_with("pcie")) {
    const auto parts = fields_of(field.substr(4), 'x');
    const auto generation = whole(parts[0]), lanes = parts.size() == 2 ? whole(parts[1]) : 16;
    if (!generation || !lanes) return false;
    const auto bytes = nibble::pcie_bytes_per_second(*generation, *lanes);
    if (bytes) d.sheet.link_bytes_per_second = *bytes;
    return bytes.has_value();
  }
  if (field.starts_with("x")) {
    const auto count = whole(field.substr(1));
    if (!count || *count < 1 || *count > 16) return false;
    d.count = *count;
    return true;
  }
  if (field.ends_with("/s")) {
    const auto bytes = common::bytes_of(field.substr(0, field.size() - 2));
    if (bytes) d.sheet.memory_bytes_per_second = *bytes;
    return bytes && *bytes > 0;
  }
  const auto rate = common::read_amount(field);
  if (!rate || rate->unit != "TOPS" || rate->value <= 0) return false;
  d.sheet.int8_macs_per_second = rate->value * 1e12 / 2;
  return true;
}

description read_description(const std::string& text) {
  const auto fields = fields_of(text, ':');
  const auto refuse = [&](const std::string& what) {
    throw common::usage_error("--device: " + quoted(text) + ": " + what);
  };
  description d;
  if (fields[0] == "gpu" || fields[0] == "cuda") {
    d.kind = nibble::device_kind::cuda;
  } else if (fields[0] == "hip") {
    d.kind = nibble::device_kind::hip;
  } else if (fields[0] != "cpu") {
    refuse("a description begins with gpu, cuda, hip or cpu");
  }
  const auto memory = fields.size() > 1 ? common::bytes_of(fields[1]) : std::nullopt;
  if (!memory || *memory < 1) refuse("its memory was expected in the second place, such as 24GiB");
  d.memory = *memory;
  d.sheet = nibble::typical_sheet({.kind = d.kind, .name = {}, .threads = 8});
  for (std::size_t i = 2; i < fields.size(); ++i) {
    if (read_field(fields[i], d)) continue;
    refuse(
        quoted(fields[i]) +
        " is neither a memory bandwidth (1008GB/s), a rate of 8-bit operations (660TOPS), a link "
        "(pcie4x16) nor a number of such devices (x2)");
  }
  return d;
}

}  // namespace

std::string help() {
  return "devices to plan for instead of all of this machine's: ids of some of those (cpu, cuda0), "
         "or others that are described, such as gpu:24GiB:1008GB/s:pcie4x16, "
         "hip:16GiB:x2 or cpu:64GiB:80GB/s: kind, memory, and as far as known memory bandwidth, "
         "8-bit operations (660TOPS), link, how many; disk:3GB/s for what fits into no memory "
         "(repeatable)";
}

std::string is_context(const std::string& text) {
  const auto n = whole(text);
  if (text == "max" || (n && *n <= common::most_context)) return "";
  return nibble::concat("a number from 0 to ", common::most_context, " or max was expected, not ",
                        quoted(text));
}

namespace {

std::optional<nibble::pinned_blocks> read_pin(const std::string& text) {
  using part = nibble::pinned_blocks::part;
  const auto sides = fields_of(text, '=');
  const auto device = sides.size() == 2 ? whole(sides[1]) : std::nullopt;
  if (!device) return std::nullopt;
  nibble::pinned_blocks pin{.device = *device};
  auto fields = fields_of(sides[0], ':');
  if (fields[0] == "embedding" || fields[0] == "head") {
    pin.what = fields[0] == "head" ? part::head : part::embedding;
    return fields.size() == 1 ? std::optional(pin) : std::nullopt;
  }
  if (fields[0] == "attention" || fields[0] == "ffn") {
    pin.what = fields[0] == "ffn" ? part::feed_forward : part::attention;
    if (fields.size() == 1) return pin;
    fields.erase(fields.begin());
  }
  const auto ends = fields_of(fields[0], '-');
  const auto first = whole(ends[0]), last = ends.size() == 2 ? whole(ends[1]) : first;
  if (fields.size() != 1 || ends.size() > 2 || !first || !last || *last < *first) {
    return std::nullopt;
  }
  pin.first = *first;
  pin.last = *last < std::numeric_limits<std::int32_t>::max() ? *last + 1 : *last;
  return pin;
}

}  // namespace

std::string is_pin(const std::string& text) {
  if (read_pin(text)) return "";
  return "layers or a part, and a device, were expected, such as 0-15=0, ffn:16-31=1 or head=0, "
         "not " +
         quoted(text);
}

nibble::pinned_blocks pin_of(const std::string& text) {
  return read_pin(text).value_or(nibble::pinned_blocks{});
}

devices::devices(const std::vector<std::string>& descriptions,
                 const nibble::model_definition& model, bool measure) {
  nibble::speed_options speeds;
  speeds.measure = measure;
  std::set<nibble::format_id> formats;
  for (const auto& need : model.needs) {
    if (need.found && !need.as_float) formats.insert(need.found->view.format);
  }
  speeds.plan.formats.assign(formats.begin(), formats.end());
  const auto is_id = [](const std::string& text) { return text.find(':') == text.npos; };
  std::optional<nibble::devices::hardware> found;  // looked for once, where it is asked for
  if (descriptions.empty() || std::any_of(descriptions.begin(), descriptions.end(), is_id)) {
    found = nibble::devices::probe();
  }
  if (descriptions.empty()) {
    notes_ = found->notes;
    for (const nibble::device_info& info : found->all) add_found(*found, info, speeds);
  }
  for (const std::string& text : descriptions) {
    if (is_id(text)) {
      add_found(*found, find(*found, text), speeds);
    } else {
      describe(text);
    }
  }
}

const nibble::device_info& devices::find(const nibble::devices::hardware& found,
                                         const std::string& id) {
  std::string known;
  for (const nibble::device_info& info : found.all) {
    if (info.id == id) return info;
    known += (known.empty() ? "" : ", ") + info.id;
  }
  throw common::usage_error("--device: " + quoted(id) +
                            " is no device of this machine, which has " + known +
                            "; others are described, such as gpu:24GiB");
}

void devices::add_found(const nibble::devices::hardware& found, const nibble::device_info& info,
                        const nibble::speed_options& speeds) {
  const bool cpu = info.kind == nibble::device_kind::cpu;
  const auto open = [&] { return cpu ? nibble::make_cpu_backend() : found.modules->open(info.id); };
  add(cpu ? nibble::make_cpu_sizes() : found.modules->sizes(info.id),
      nibble::find_speed(info, open, speeds));
  if (offers_.back().speed.measured) return;
  notes_.push_back(info.name +
                   ": its speed was not measured but is what such devices usually have; "
                   "--measure measures it.");
}

void devices::add_disk(double bytes_per_second) {
  nibble::device_speed speed = offers_.back().speed;
  for (std::size_t i = 0; i < sizes_.size(); ++i) {
    if (sizes_[i]->info().kind == nibble::device_kind::cpu) speed = offers_[i].speed;
  }
  add(nibble::make_disk_sizes(), nibble::streamed_speed(std::move(speed), bytes_per_second));
}

void devices::add(std::unique_ptr<nibble::device_sizes> sizes, nibble::device_speed speed) {
  offers_.push_back({.sizes = sizes.get(), .speed = std::move(speed)});
  sizes_.push_back(std::move(sizes));
}

void devices::describe(const std::string& text) {
  const auto fields = fields_of(text, ':');
  if (fields[0] == "disk") {
    const auto rate = fields.size() == 2 && fields[1].ends_with("/s")
                          ? common::bytes_of(fields[1].substr(0, fields[1].size() - 2))
                          : std::nullopt;
    const bool has_cpu = std::any_of(sizes_.begin(), sizes_.end(), [](const auto& s) {
      return s->info().kind == nibble::device_kind::cpu;
    });
    if (!rate || *rate < 1 || !has_cpu) {
      throw common::usage_error("--device: " + quoted(text) +
                                ": a disk is described by its rate, such as disk:3GB/s, after a "
                                "cpu, in whose memory it works");
    }
    add_disk(static_cast<double>(*rate));
    return;
  }
  const description d = read_description(text);
  for (int i = 0; i < d.count; ++i) {
    nibble::device_info info{.kind = d.kind, .name = {}};
    const bool cpu = d.kind == nibble::device_kind::cpu;
    int same = 0;
    for (const auto& other : sizes_) same += other->info().kind == d.kind ? 1 : 0;
    info.id = nibble::concat(cpu                                  ? "cpu"
                             : d.kind == nibble::device_kind::hip ? "hip"
                                                                  : "cuda",
                             cpu && same == 0 ? "" : std::to_string(same));
    info.total_bytes = info.free_bytes = static_cast<std::uint64_t>(d.memory);
    info.name = nibble::concat(info.id, " (", nibble::to_text(info.total_bytes), ")");
    add(cpu ? nibble::make_cpu_sizes({}, info) : nibble::make_gpu_sizes(info),
        nibble::speed_of(d.kind, d.sheet));
  }
}

}  // namespace plan_devices

// Speeds of devices that are not here, from what is printed about them.
#include <algorithm>
#include <cmath>
#include <nibble/device/speed.hpp>
#include <nibble/formats/list.hpp>

namespace nibble::inline NIBBLE_ABI {
namespace {

// Shares of a data sheet's numbers that kernels reach, and times that no data sheet has. Of CPUs
// they were measured; of GPUs they are what well-made kernels reach elsewhere.
struct efficiency {
  double weights;                      // of memory: products with one token
  double int8, floats;                 // of multiply-adds: products with many tokens
  double kv;                           // of memory: attention of one token
  double attend, prompt_attend;        // of floats' multiply-adds: of one token, of many
  double int8_of_byte, float_of_byte;  // multiply-adds for each byte of memory read, usually
  double step, step_value, attend_seconds, run;  // seconds
  double link;                                   // of the link
  double link_seconds;
};

constexpr efficiency of_cpu = {.weights = 0.8,
                               .int8 = 0.5,
                               .floats = 0.5,
                               .kv = 0.5,
                               .attend = 0.25,
                               .prompt_attend = 0.4,
                               .int8_of_byte = 10,
                               .float_of_byte = 6,
                               .step = 1e-6,
                               .step_value = 1e-9,
                               .attend_seconds = 10e-6,
                               .run = 10e-6,
                               .link = 1,
                               .link_seconds = 0};
// A step is two or three kernels of a graph that is replayed.
constexpr efficiency of_gpu = {.weights = 0.7,
                               .int8 = 0.4,
                               .floats = 0.3,
                               .kv = 0.5,
                               .attend = 0.1,
                               .prompt_attend = 0.25,
                               .int8_of_byte = 200,
                               .float_of_byte = 60,
                               .step = 4e-6,
                               .step_value = 1e-10,
                               .attend_seconds = 8e-6,
                               .run = 30e-6,
                               .link = 0.8,
                               .link_seconds = 10e-6};

bool is_float(const format_info& info) {
  return info.block_size == 1;
}

}  // namespace

std::optional<double> pcie_bytes_per_second(int generation, int lanes) {
  // giga-transfers a second and lane, and bits of data among those that are sent
  struct rate {
    double transfers, share;
  };
  constexpr rate rates[] = {{2.5, 0.8},        {5, 0.8},    {8, 128.0 / 130}, {16, 128.0 / 130},
                            {32, 128.0 / 130}, {64, 0.946}, {128, 0.946}};
  if (generation < 1 || generation > static_cast<int>(std::size(rates))) return std::nullopt;
  if (lanes < 1 || lanes > 16 || (lanes & (lanes - 1)) != 0) return std::nullopt;
  const rate& r = rates[generation - 1];
  return r.transfers * 1e9 / 8 * r.share * lanes;
}

device_sheet typical_sheet(const device_info& device) {
  switch (device.kind) {
    case device_kind::cpu:
    case device_kind::disk: {
      // two channels of DDR5; a core with 256-bit vectors at 4 GHz
      const double threads = std::max(device.threads, 1);
      return {.memory_bytes_per_second = std::min(60e9, 20e9 * threads),
              .int8_macs_per_second = 50e9 * threads,
              .float_macs_per_second = 40e9 * threads};
    }
    case device_kind::cuda:
      return {.memory_bytes_per_second = 500e9,
              .int8_macs_per_second = 100e12,
              .float_macs_per_second = 30e12,
              .link_bytes_per_second = *pcie_bytes_per_second(4, 16)};
    case device_kind::hip:
      return {.memory_bytes_per_second = 600e9,
              .int8_macs_per_second = 70e12,
              .float_macs_per_second = 35e12,
              .link_bytes_per_second = *pcie_bytes_per_second(4, 16)};
    case device_kind::emulated:
      break;
  }
  return {.memory_bytes_per_second = 50e6,
          .int8_macs_per_second = 50e6,
          .float_macs_per_second = 50e6,
          .link_bytes_per_second = 1e9};
}

device_speed speed_of(device_kind kind, const device_sheet& sheet) {
  const efficiency& e = computes_on_cpu(kind) ? of_cpu : of_gpu;
  const double memory = std::max(sheet.memory_bytes_per_second, 1e6);
  const auto or_usual = [&](double given, double of_byte) {
    return given > 0 ? given : of_byte * memory;
  };
  const double int8 = or_usual(sheet.int8_macs_per_second, e.int8_of_byte);
  const double floats = or_usual(sheet.float_macs_per_second, e.float_of_byte);
  device_speed speed;
  for (const format_info& info : format_infos) {
    const double macs = is_float(info) ? floats * e.floats : int8 * e.int8;
    speed.formats.push_back({info.id, memory * e.weights, macs});
  }
  for (const kv_type_info& info : all_kv_types) {
    speed.kv.push_back({info.type, memory * e.kv, floats * e.attend, floats * e.prompt_attend});
  }
  speed.step_seconds = e.step;
  speed.step_value_seconds = e.step_value;
  speed.attend_seconds = e.attend_seconds;
  speed.run_seconds = e.run;
  if (sheet.link_bytes_per_second > 0) {
    speed.link_bytes_per_second = sheet.link_bytes_per_second * e.link;
    speed.link_seconds = e.link_seconds;
  }
  return speed;
}

device_speed streamed_speed(device_speed cpu, double disk_bytes_per_second) {
  for (format_speed& f : cpu.formats) {
    f.bytes_per_second = std::min(f.bytes_per_second, disk_bytes_per_second);
  }
  return cpu;
}

}  // namespace nibble::inline NIBBLE_ABI

// How fast a device is, as a cost model needs it: measured with the kernels that models run on, or
// derived from a data sheet.
//
// What a batch takes on a device, in seconds, is by these numbers the sum of
//   run_seconds                                      once
//   weights' bytes / bytes_per_second                each product of one token, by its format
//   macs / macs_per_second                           or this, of many tokens
//   step_seconds + columns * step_value_seconds      each product
//   attend_seconds                                   each layer's attention
//   tokens in the cache * (their bytes / kv bytes_per_second + macs / kv macs_per_second)
//                                                    each layer's attention, of one token
//   macs / prompt_macs_per_second                    or this, of many tokens
//   2 * link_seconds + bytes / link_bytes_per_second where the hidden state enters and leaves
// A multiply-add counts as one. Those of attention are, for each token that a query sees, query
// heads * (key_length + value_length). Gates, norms and additions beside products are in the
// products' numbers; of many tokens, the fixed times are small.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <nibble/base/config.hpp>
#include <nibble/device/backend.hpp>
#include <nibble/device/kv_type.hpp>
#include <nibble/formats/format_id.hpp>
#include <optional>
#include <span>
#include <vector>

namespace nibble::inline NIBBLE_ABI {

struct format_speed {
  format_id format{};
  double bytes_per_second = 0;  // of weights as the device holds them, read for one token
  double macs_per_second = 0;   // multiply-adds a second, of many tokens
};

struct kv_speed {
  kv_type type = kv_type::f16;        // of keys and values
  double bytes_per_second = 0;        // of keys and values, read for one token
  double macs_per_second = 0;         // of one token, beside reading
  double prompt_macs_per_second = 0;  // of many tokens, all included
};

struct NIBBLE_API device_speed {
  std::vector<format_speed> formats;  // those measured, in the order of all_formats
  std::vector<kv_speed> kv;           // those measured, in the order of all_kv_types
  double step_seconds = 0;            // fixed time of a product: launches, barriers
  double step_value_seconds = 0;      // and for each value of its input: norm, quantisation
  double attend_seconds = 0;          // fixed time of a layer's attention of one token
  double run_seconds = 0;             // fixed time of submit() and wait(), an embedding included
  double link_bytes_per_second = 0;   // of hidden state in or out; 0: the memory is the host's
  double link_seconds = 0;            // fixed time of one way in or out; 0 likewise
  double noise = 1;  // how much longer the middle one of runs takes than one of the quicker ones
  bool measured = false;  // false: typical of its kind

  // What is known of a format. One that was not measured counts as the nearest in bits a weight
  // that was, floats among floats and blocks among blocks where there are some; of two equally near
  // ones as the larger. Throws error: invalid_argument (no format was measured), unsupported (no
  // format of nibble).
  format_speed of(format_id format) const;
  // The same for keys and values, by bits a value. Throws error: invalid_argument.
  kv_speed of(kv_type type) const;
};

// What is measured, and with how much effort. The defaults are for real use; tests take less.
struct speed_plan {
  std::vector<format_id> formats = {};  // empty: usual_formats()
  std::vector<kv_type> kv_types = {kv_type::f16};
  // Products are [columns, rows] and [rows, columns]; multiples of 256.
  std::int32_t columns = 4096, rows = 4096;
  // Of weights, over all formats: more than caches hold. Their products run in turn. 0: by device.
  std::size_t weight_bytes = 0;
  std::int32_t heads = 32, heads_kv = 8, head_length = 128;  // of attention
  std::int32_t depth = 4096;                                 // tokens in its cache
  std::int32_t layers = 4;                                   // of that cache
  std::int32_t prompt_tokens = 128;                          // a fast device is measured with more
  double seconds = 0.25;  // that measuring one format may take, about, filling its weights aside
};

// Those that most files have; the others are near one of them.
NIBBLE_API std::span<const format_id> usual_formats();

// Measures a backend that was not given weights yet: its arena is used up, and freed with it.
// Nothing else should run meanwhile. Throws error: as the backend does, and invalid_argument for a
// plan that cannot be.
NIBBLE_API device_speed measure_speed(backend& fresh, const speed_plan& plan = {});

// What a data sheet says of a device.
struct device_sheet {
  double memory_bytes_per_second = 0;
  // Multiply-adds, dense: half of the "operations". 0: by the usual ratio to the memory.
  double int8_macs_per_second = 0;
  double float_macs_per_second = 0;  // of 16 bits on a GPU, of 32 on a CPU
  double link_bytes_per_second = 0;  // one way; 0: the memory is the host's
};

// Bytes a second that PCI Express carries one way, after its encoding: generations 1 to 7, 1 to 16
// lanes (a power of two). Empty for others.
NIBBLE_API std::optional<double> pcie_bytes_per_second(int generation, int lanes);

// A device of the kind that has not more to say of itself: the middle of what is sold.
NIBBLE_API device_sheet typical_sheet(const device_info& device);
// What kernels reach of a data sheet, by the kind of the device: stated shares of its numbers.
NIBBLE_API device_speed speed_of(device_kind kind, const device_sheet& sheet);

// A CPU with weights that are read from disk for each product. Bytes a second: of the disk.
NIBBLE_API device_speed streamed_speed(device_speed cpu, double disk_bytes_per_second);
// Of a disk of which nothing is known: a fast one.
inline constexpr double typical_disk_bytes_per_second = 2e9;

// Where the speed of a device comes from.
struct speed_options {
  speed_plan plan = {};
  // How the backend computes; files for different ones are kept apart.
  activation_type activations = activation_type::int8;
  bool measure = true;  // false: what the cache has, else what is typical
  bool cache = true;    // false: no file is read or written
  // What was measured with more noise is kept, but measured again by the next process.
  double most_noise = 1.3;
  bool anew = false;  // measures even if the cache has it
  // Of the files. Empty: NIBBLE_CACHE_DIR, or the folder "nibble" in XDG_CACHE_HOME or ~/.cache.
  std::filesystem::path folder = {};
};

// The speed of this machine's device: from the cache, else measured with a backend that `open`
// makes and kept in the cache, else typical. A cache that cannot be read or written, or that is of
// another machine or version, counts as none. Throws error: as open() and measure_speed() do.
NIBBLE_API device_speed find_speed(const device_info& device,
                                   const std::function<std::unique_ptr<backend>()>& open,
                                   const speed_options& options = {});

}  // namespace nibble::inline NIBBLE_ABI

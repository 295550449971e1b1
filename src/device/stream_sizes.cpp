#include "device/stream_sizes.hpp"

#include <nibble/base/concat.hpp>
#include <nibble/base/error.hpp>

#include "device/stream_tensor.hpp"

namespace nibble::inline NIBBLE_ABI {

void check_disk_options(const disk_options& options) {
  if (options.slots < 2 || options.slots > 4) {
    throw error(errc::invalid_argument,
                concat("a ring of ", options.slots, " blocks was asked for; it has 2 to 4."));
  }
  if (options.readers < 1 || options.readers > 64) {
    throw error(errc::invalid_argument,
                concat(options.readers, " readers were asked for; there are 1 to 64."));
  }
}

device_info describe_disk(device_info cpu, const disk_options& options) {
  cpu.kind = device_kind::disk;
  cpu.id = "disk";
  cpu.name = concat("disk (ring of ", options.slots, " blocks)");
  return cpu;
}

std::uint64_t disk_staging_bytes(const disk_options& options) {
  check_disk_options(options);
  return static_cast<std::uint64_t>(options.readers) *
         stream_file::staging_bytes(stream_piece_bytes);
}

workspace_size stream_sizes::workspace_of(const recording& steps, program_limits limits) const {
  workspace_size size = cpu_.workspace_of(steps, limits);
  size.host_shared += staging_bytes_;
  return size;
}

}  // namespace nibble::inline NIBBLE_ABI

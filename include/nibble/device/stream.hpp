// Matrices that stay on disk: read whenever they are needed, block by block, through a ring of
// buffers (weight_ring); those of routed experts when a token goes through them, and kept as long
// as there is room (expert_cache).
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <nibble/base/config.hpp>
#include <nibble/device/backend.hpp>
#include <nibble/device/cpu.hpp>
#include <nibble/gguf/file.hpp>
#include <span>
#include <string>

namespace nibble::inline NIBBLE_ABI {

// Where the data of a tensor lie.
struct stored_tensor {
  gguf::opened_part part;
  std::uint64_t offset = 0, bytes = 0;
  std::string name;  // the tensor's
  // Its matrices are routed experts', each of them read when a token goes through it.
  bool experts = false;
};

// What a backend with a ring offers besides. Blocks are counted from 0, in the order in which they
// run; make_program() is called once for each of them, in that order, and its program reads the
// matrices of that block only. Once all have theirs, the first blocks are read ahead.
//
// Programs are best submitted in that order, over and over. Those that are left out cost what was
// read ahead for them.
//
// submit() throws error (io) if the file cannot be read or is not what it was when it was opened.
// Nothing is lost by that: the next submit() tries again.
class NIBBLE_API weight_stream {
 public:
  virtual ~weight_stream() = default;

  // Bytes of each block's matrices but for those of routed experts (weight_bytes() added up), and
  // the room for experts; before reserve_weights().
  virtual void reserve_blocks(std::span<const std::uint64_t> bytes,
                              const expert_cache& experts) = 0;
  // Takes room in the block's buffer; after reserve_weights(), by one thread. The file must stay
  // where it is. Throws error: io (it cannot be opened, or was written to), invalid_argument,
  // unsupported (rows that are too long to be read in pieces).
  virtual weight place_stored(const tensor_view& tensor, const stored_tensor& stored,
                              std::size_t block) = 0;
};

struct disk_options {
  cpu_options cpu = {};
  std::int32_t slots = 3;     // buffers of the ring, 2 to 4
  std::int32_t readers = 16;  // pieces that are read at once, 1 to 64
};

// What reads take of memory besides the ring, in workspace_size::host_shared of each program.
NIBBLE_API std::uint64_t disk_staging_bytes(const disk_options& options = {});

// Bytes a second at which the file is read as a ring reads it, when nothing else is done: measured
// with its first part's first bytes, at most so many. Throws error: io, out_of_memory,
// invalid_argument (a file in memory, options).
NIBBLE_API double measure_disk(const gguf::file& file, const disk_options& options = {},
                               std::uint64_t bytes = std::uint64_t{512} << 20);

// Computes on the CPU, to the same numbers as make_cpu_backend(). Throws as that, and error
// (invalid_argument) for other numbers of slots or readers.
NIBBLE_API std::unique_ptr<backend> make_disk_backend(const disk_options& options = {});

}  // namespace nibble::inline NIBBLE_ABI

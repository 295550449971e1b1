// What a kind of hardware must be able to do. The CPU and GPUs implement this one interface.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <nibble/base/config.hpp>
#include <nibble/device/batch.hpp>
#include <nibble/device/kv_cache.hpp>
#include <nibble/device/recording.hpp>
#include <nibble/device/weight.hpp>
#include <nibble/tensor/view.hpp>
#include <span>
#include <string>

namespace nibble::inline NIBBLE_ABI {

enum class device_kind {
  cpu,
  cuda,
  hip,
  emulated,  // a GPU whose kernels run on the CPU: slow, for tests
  disk       // the CPU, with matrices that are read from their file whenever they are needed
};

// Its memory is the host's, and submit() returns when the work is done.
constexpr bool computes_on_cpu(device_kind kind) {
  return kind == device_kind::cpu || kind == device_kind::disk;
}

struct device_info {
  device_kind kind = device_kind::cpu;
  std::string id = {};            // "cpu", "cuda0"
  std::string name;               // "CPU (2 cores, avx2)"
  std::int32_t threads = 0;       // that compute; 0: not a matter of threads
  std::uint64_t total_bytes = 0;  // of its memory
  std::uint64_t free_bytes = 0;   // when it was asked
};

// How activations enter a product with a quantised weight.
enum class activation_type {
  int8,    // a scale and 32 eight-bit integers a block
  float32  // for comparison: slower, without rounding
};

// Rows of a tensor, counted over all its matrices.
struct row_range {
  std::int64_t first = 0, count = 0;
};
// A part of a tensor that is filled by itself starts at a multiple of so many rows of a matrix.
inline constexpr std::int64_t part_rows = 64;

// A recording made ready to run on one device. Not thread-safe: one run at a time.
class NIBBLE_API program {
 public:
  virtual ~program() = default;

  // Host-visible staging of the hidden state that enters, [tokens, width]; empty if none does.
  virtual std::span<float> input() = 0;
  // Starts a run; the batch's arrays may be reused as soon as this returns.
  // Throws error (device) and leaves every cache as if the run had not been asked for.
  virtual void submit(const batch& work) = 0;
  // Blocks until the run is over and its output can be read.
  virtual void wait() = 0;
  // Host-visible output of the last run: hidden state [tokens, width] or logits [outputs, n_vocab].
  virtual std::span<const float> output() = 0;
};

// Bytes that a program takes besides its weights and caches: on its device, and of the host's
// memory for what crosses over.
struct NIBBLE_API workspace_size {
  std::uint64_t shared = 0;       // that programs which run one after another may share
  std::uint64_t own = 0;          // that this one keeps
  std::uint64_t host_shared = 0;  // of the host, if that is another memory
  std::uint64_t host_own = 0;

  // Of this program and others on one device.
  void add(const workspace_size& other);
  std::uint64_t device() const noexcept { return shared + own; }
  std::uint64_t host() const noexcept { return host_shared + host_own; }
  friend bool operator==(const workspace_size&, const workspace_size&) = default;
};

// Bytes by what they are for.
struct memory_use {
  std::uint64_t weights = 0;
  std::uint64_t kv = 0;
  std::uint64_t workspace = 0;  // activations, scratch
  std::uint64_t host = 0;       // of the host's memory, for transfers

  std::uint64_t device() const noexcept { return weights + kv + workspace; }
  friend bool operator==(const memory_use&, const memory_use&) = default;
};

// How the matrices of blocks lie on a device: in its memory, or on disk, from where they pass
// through a ring of buffers, those of one block through one buffer.
struct NIBBLE_API weight_ring {
  std::int32_t slots = 0;  // buffers; 0: none, the device keeps all matrices

  static constexpr std::uint64_t slot_alignment = 4096;

  // Of all buffers, if the matrices of no block take more than `greatest`: their weight_bytes()
  // added up. 2^64 - 1 if that cannot be counted.
  std::uint64_t bytes(std::uint64_t greatest) const noexcept;
  friend bool operator==(const weight_ring&, const weight_ring&) = default;
};

// Room for routed experts whose matrices are read from disk when a token goes through them. Those
// used last are kept.
struct NIBBLE_API expert_cache {
  std::uint64_t slot_bytes = 0;  // all matrices of one expert: weight_bytes() of each, added up
  std::int64_t slots = 0;        // experts, of all blocks together

  // 2^64 - 1 if that cannot be counted.
  std::uint64_t bytes() const noexcept;
  friend bool operator==(const expert_cache&, const expert_cache&) = default;
};

class weight_stream;

// What a model takes on a kind of device: known before there is one, or where there is none.
class NIBBLE_API device_sizes {
 public:
  virtual ~device_sizes() = default;

  virtual const device_info& info() const noexcept = 0;

  // Bytes that a weight will take in the device's arena or in a buffer of its ring, alignment
  // included.
  virtual std::size_t weight_bytes(const tensor_view& tensor) const = 0;
  virtual weight_ring ring() const noexcept { return {}; }
  // pages: how many of each group of layers (group_layers). Throws error: invalid_argument,
  // unsupported (a type that rows of this length cannot have), out_of_memory.
  virtual std::size_t cache_bytes(const kv_layout& layout,
                                  std::span<const std::int32_t> pages) const = 0;
  // Bytes of the host's memory that a cache takes besides, for pages in transfer.
  virtual std::size_t cache_host_bytes(const kv_layout&) const { return 0; }
  // What a program of this recording needs; the same code lays it out for real.
  virtual workspace_size workspace_of(const recording& steps, program_limits limits) const = 0;
};

class NIBBLE_API backend : public device_sizes {
 public:
  // Makes the one arena that all weights go to, and where there is one the ring, which `bytes`
  // include. Called once. Throws error (out_of_memory).
  virtual void reserve_weights(std::size_t bytes) = 0;
  // Takes room in the arena for a tensor, whose data are not looked at yet. This and the next two
  // may be called from several threads.
  virtual weight place_weight(const tensor_view& tensor) = 0;
  // Packs `rows` of the tensor, which lie at `from`, to the place that was taken for them. They are
  // whole parts (part_rows) or reach the end of a matrix. Throws error (invalid_argument) for rows
  // that the tensor does not have, and parts that start elsewhere.
  virtual void fill_weight(const weight& placed, row_range rows, const std::byte* from) = 0;
  // Places a tensor and fills all of it.
  weight import_weight(const tensor_view& tensor);
  // Takes matrices that stay in their file; null unless the device has a ring.
  virtual weight_stream* stream() noexcept { return nullptr; }

  virtual std::unique_ptr<kv_cache> make_cache(const kv_layout& layout,
                                               std::span<const std::int32_t> pages) = 0;

  // One workspace for all programs that are made from now on, of which the caller runs one after
  // another and reads each one's output before the next starts. Without it each has its own.
  // Throws error: out_of_memory, and invalid_argument the second time.
  virtual void reserve_workspace(const workspace_size& size) = 0;
  // Weights named by the recording must have been imported by this backend. Throws error:
  // invalid_argument (also if the reserved workspace is too small), unsupported, out_of_memory.
  virtual std::unique_ptr<program> make_program(recording steps, program_limits limits) = 0;

  // What is allocated now, and the most that each part took at any time.
  virtual memory_use allocated() const = 0;
  virtual memory_use peak() const { return allocated(); }
};

}  // namespace nibble::inline NIBBLE_ABI

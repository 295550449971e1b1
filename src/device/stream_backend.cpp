#include "device/stream_backend.hpp"

#include <algorithm>
#include <nibble/base/concat.hpp>
#include <nibble/base/error.hpp>
#include <utility>

namespace nibble::inline NIBBLE_ABI {
namespace {

// The CPU's program of one block, which waits for the block's matrices.
class stream_program final : public program {
 public:
  stream_program(stream_backend& owner, std::size_t block, std::unique_ptr<program> steps)
      : owner_(owner), block_(block), steps_(std::move(steps)) {}

  std::span<float> input() override { return steps_->input(); }
  void submit(const batch& work) override {
    const auto there = owner_.acquire(block_);
    const use_of_experts used{owner_, block_};
    steps_->submit(work);  // runs to the end
  }
  void wait() override { steps_->wait(); }
  std::span<const float> output() override { return steps_->output(); }

 private:
  struct use_of_experts {
    stream_backend& owner;
    const std::size_t block;
    ~use_of_experts() { owner.release_experts(block); }
  };

  stream_backend& owner_;
  const std::size_t block_;
  const std::unique_ptr<program> steps_;
};

}  // namespace

stream_backend::stream_backend(const disk_options& options, const cpu::kernel_table& kernels)
    : options_(options),
      cpu_(options.cpu, kernels),
      sizes_(cpu_sizes(describe_disk(cpu_.info(), options), kernels, options.cpu.activations),
             options) {}

void stream_backend::reserve_blocks(std::span<const std::uint64_t> bytes,
                                    const expert_cache& experts) {
  if (!rooms_.empty()) {
    throw error(errc::invalid_argument, "a ring for weights was reserved already",
                {.device = info().name});
  }
  for (const std::uint64_t b : bytes) rooms_.push_back({.bytes = b});
  experts_size_ = experts;
}

void stream_backend::reserve_weights(std::size_t bytes) {
  if (rooms_.empty()) return cpu_.reserve_weights(bytes);
  const auto greatest = std::max_element(
      rooms_.begin(), rooms_.end(), [](const auto& a, const auto& b) { return a.bytes < b.bytes; });
  const std::uint64_t all = ring().bytes(greatest->bytes), of_experts = experts_size_.bytes();
  if (all > bytes || of_experts > bytes - all) {
    throw error(errc::invalid_argument,
                concat("the ring takes ", all, " bytes and experts ", of_experts,
                       ", more than the ", bytes, " that were to be reserved"),
                {.device = info().name});
  }
  cpu_.reserve_weights(bytes - all - of_experts);
  slot_bytes_ = all / static_cast<std::uint64_t>(options_.slots);
  slots_ = arena(all, "weights that are read from disk");
  experts_memory_ = arena(of_experts, "experts that are read from disk");
  staging_ = arena(sizes_.staging_bytes(), "reading weights from disk");
  pieces_.emplace(rooms_.size());
  experts_.emplace(experts_size_, experts_memory_.data(), rooms_.size(),
                   [this](std::function<void(std::span<std::byte>)> what) {
                     ring_->run_soon([this, what = std::move(what)](std::size_t reader) {
                       what(staging_of(reader));
                     });
                   });
}

weight stream_backend::place_stored(const tensor_view& tensor, const stored_tensor& stored,
                                    std::size_t block) {
  const std::size_t bytes = stored.experts ? 0 : weight_bytes(tensor);
  if (!pieces_ || ring_ || block >= rooms_.size() ||
      bytes > rooms_[block].bytes - rooms_[block].used) {
    throw error(errc::invalid_argument,
                concat("no room was reserved in block ", block, " for its ", bytes, " bytes"),
                {.tensor = stored.name, .device = info().name});
  }
  weight w;
  w.format = tensor.format;
  w.shape = tensor.shape;
  w.matrix_bytes = sizes_.packing().matrix_bytes(tensor);
  w.name = stored.name;
  stream_tensor read(w, stored, files_.open(stored.part), sizes_.packing());
  if (stored.experts) {
    experts_->add(w, std::move(read), block);
    return w;
  }
  const std::size_t slot = block % static_cast<std::size_t>(options_.slots);
  std::byte* const to = slots_.data() + slot * slot_bytes_ + rooms_[block].used;
  rooms_[block].used += bytes;
  w.data = to;
  pieces_->add(std::move(read), to, block);
  return w;
}

std::span<std::byte> stream_backend::staging_of(std::size_t reader) const {
  constexpr std::size_t each = stream_file::staging_bytes(stream_piece_bytes);
  return {staging_.data() + reader * each, each};
}

void stream_backend::start_ring() {
  ring_.emplace(stream_ring::sizes{.pieces = pieces_->counts(),
                                   .slots = static_cast<std::size_t>(options_.slots),
                                   .readers = static_cast<std::size_t>(options_.readers)},
                [this](std::size_t block, std::size_t piece, std::size_t reader) {
                  pieces_->fill(block, piece, staging_of(reader));
                });
}

std::unique_ptr<program> stream_backend::make_program(recording steps, program_limits limits) {
  if (rooms_.empty()) return cpu_.make_program(std::move(steps), limits);
  if (programs_ == rooms_.size()) {
    throw error(errc::invalid_argument,
                concat("each of the ", programs_, " blocks on disk has its program already"),
                {.device = info().name});
  }
  auto made = std::make_unique<stream_program>(*this, programs_,
                                               cpu_.make_program(std::move(steps), limits));
  if (programs_ + 1 == rooms_.size()) start_ring();
  ++programs_;
  return made;
}

stream_ring::lease stream_backend::acquire(std::size_t block) {
  if (!ring_) {
    throw error(errc::invalid_argument,
                concat("a program was run when ", programs_, " of ", rooms_.size(),
                       " blocks on disk had one"),
                {.device = info().name});
  }
  return ring_->acquire(block);
}

void stream_backend::release_experts(std::size_t block) noexcept {
  experts_->release(block);
}

memory_use stream_backend::allocated() const {
  memory_use use = cpu_.allocated();
  use.weights += slots_.bytes() + experts_memory_.bytes();
  use.host += staging_.bytes();
  return use;
}

}  // namespace nibble::inline NIBBLE_ABI

#include "device/stream_experts.hpp"

#include <algorithm>
#include <nibble/base/checked.hpp>
#include <nibble/base/concat.hpp>
#include <nibble/base/error.hpp>
#include <utility>

namespace nibble::inline NIBBLE_ABI {
namespace {

constexpr std::size_t none = ~std::size_t{0};

}  // namespace

class stream_experts::block_experts final : public expert_source {
 public:
  explicit block_experts(stream_experts& owner) : owner_(owner) {}

  // Where the tensor's matrix begins in an expert.
  std::size_t add(stream_tensor tensor) {
    const auto experts = static_cast<std::size_t>(tensor.matrices());
    if (parts.empty()) {
      slot_of.assign(experts, none);
      there = std::vector<std::atomic<const std::byte*>>(experts);
    }
    if (experts != slot_of.size() || tensor.matrix_bytes() > owner_.slot_bytes_ - bytes_) {
      throw error(errc::invalid_argument,
                  concat("matrices of ", experts, " experts, ", tensor.matrix_bytes(),
                         " bytes each, were placed where there is room for ", slot_of.size(),
                         " of ", owner_.slot_bytes_ - bytes_, " bytes"));
    }
    for (const row_range rows : tensor.pieces(1)) pieces.push_back({parts.size(), rows});
    parts.push_back({std::move(tensor), bytes_});
    const std::size_t at = bytes_;
    bytes_ +=
        std::min<std::uint64_t>(align_up(parts.back().tensor.matrix_bytes(), weight_alignment),
                                owner_.slot_bytes_ - bytes_);
    return at;
  }

  void ask(std::span<const std::int32_t> experts, bool passing) override {
    lock held(owner_.mutex_);
    // first, so that none of them goes for another one
    for (const std::int32_t e : experts) owner_.keep(*this, static_cast<std::size_t>(e), passing);
    for (const std::int32_t e : experts) {
      owner_.bring(held, *this, static_cast<std::size_t>(e), passing);
    }
  }

  const std::byte* wait(std::int64_t expert) override {
    const auto e = static_cast<std::size_t>(expert);
    if (const std::byte* const found = there[e].load(std::memory_order_acquire)) return found;
    lock held(owner_.mutex_);
    const auto is_over = [&] { return slot_of[e] == none || owner_.slots_[slot_of[e]].left == 0; };
    owner_.changed_.wait(held, is_over);
    if (slot_of[e] == none) {
      throw error(errc::invalid_argument, concat("expert ", e, " was not asked for"));
    }
    if (const auto& failure = owner_.slots_[slot_of[e]].failure) std::rethrow_exception(failure);
    return there[e].load(std::memory_order_relaxed);
  }

  // A tensor, and where its matrix begins in an expert.
  struct part {
    stream_tensor tensor;
    std::size_t at;
  };
  struct piece {
    std::size_t part;
    row_range rows;
  };
  std::vector<part> parts;
  std::vector<piece> pieces;                           // of any expert
  std::vector<std::size_t> slot_of;                    // by expert; none: it is not in memory
  std::vector<std::atomic<const std::byte*>> there{};  // once all pieces are

 private:
  stream_experts& owner_;
  std::size_t bytes_ = 0;
};

stream_experts::stream_experts(const expert_cache& size, std::byte* memory, std::size_t blocks,
                               read_soon read)
    : slot_bytes_(size.slot_bytes),
      memory_(memory),
      read_(std::move(read)),
      blocks_(blocks),
      slots_(static_cast<std::size_t>(size.slots)) {
  free_.reserve(slots_.size());
  used_.reserve(slots_.size());
  for (std::size_t i = 0; i < slots_.size(); ++i) {
    slots_[i].at = order_.insert(order_.end(), i);
    free_.push_back(slots_.size() - 1 - i);
  }
}

stream_experts::~stream_experts() = default;

void stream_experts::add(weight& placed, stream_tensor tensor, std::size_t of_block) {
  auto& of = blocks_[of_block];
  if (!of) of = std::make_unique<block_experts>(*this);
  placed.in_expert = of->add(std::move(tensor));
  placed.experts = of.get();
}

// In memory, or on its way.
bool stream_experts::is_here(const block_experts& of, std::size_t expert) const {
  const std::size_t at = of.slot_of[expert];
  return at != none && !slots_[at].failure;
}

void stream_experts::keep(block_experts& of, std::size_t expert, bool passing) {
  if (!is_here(of, expert)) return;
  slot& s = slots_[of.slot_of[expert]];
  if (!passing && !s.used) order_.splice(order_.begin(), order_, s.at);
  use(of.slot_of[expert]);
}

void stream_experts::use(std::size_t at) {
  if (slots_[at].used) return;
  slots_[at].used = true;
  used_.push_back(at);
}

void stream_experts::bring(lock& held, block_experts& of, std::size_t expert, bool passing) {
  std::size_t at = of.slot_of[expert];
  if (at != none && slots_[at].used) return;
  if (at != none) {  // it failed for another run; that may be over by now
    changed_.wait(held, [&] { return slots_[at].left == 0; });
    empty(at);
  }
  at = take_slot(held);
  begin(at, of, expert);
  order_.splice(passing ? order_.end() : order_.begin(), order_, slots_[at].at);
  use(at);
}

std::size_t stream_experts::take_slot(lock& held) {
  for (;;) {
    if (!free_.empty()) {
      const std::size_t at = free_.back();
      free_.pop_back();
      return at;
    }
    bool any_left = false;
    for (auto i = order_.rbegin(); i != order_.rend(); ++i) {
      const slot& s = slots_[*i];
      any_left = any_left || (s.left > 0 && !s.used);
      if (s.used || s.left > 0) continue;
      empty(*i);
      break;
    }
    if (!free_.empty()) continue;
    if (!any_left) {
      throw error(errc::invalid_argument,
                  concat("a batch goes through more experts of a layer than the ", slots_.size(),
                         " for which there is room"));
    }
    changed_.wait(held);  // for what a run that failed had begun to read
  }
}

void stream_experts::begin(std::size_t at, block_experts& of, std::size_t expert) {
  slot& s = slots_[at];
  s.of = &of;
  s.expert = expert;
  s.left = of.pieces.size();
  of.slot_of[expert] = at;
  std::size_t asked = 0;
  try {
    for (; asked < of.pieces.size(); ++asked) {
      read_([this, at, piece = asked](std::span<std::byte> staging) { fill(at, piece, staging); });
    }
  } catch (...) {
    s.left -= of.pieces.size() - asked;
    s.failure = std::current_exception();
    throw;
  }
}

void stream_experts::fill(std::size_t at, std::size_t piece,
                          std::span<std::byte> staging) noexcept {
  // while pieces are left, nobody else changes which expert is here
  block_experts& of = *slots_[at].of;
  const std::size_t expert = slots_[at].expert;
  const block_experts::piece& p = of.pieces[piece];
  const block_experts::part& part = of.parts[p.part];
  std::exception_ptr failure;
  try {
    part.tensor.fill(static_cast<std::int64_t>(expert), p.rows, memory_of(at) + part.at, staging);
  } catch (...) {
    failure = std::current_exception();
  }
  const std::lock_guard held(mutex_);
  slot& s = slots_[at];
  if (failure && !s.failure) s.failure = std::move(failure);
  if (--s.left > 0) return;
  if (!s.failure) of.there[expert].store(memory_of(at), std::memory_order_release);
  changed_.notify_all();
}

void stream_experts::empty(std::size_t at) noexcept {
  slot& s = slots_[at];
  if (!s.of) return;
  s.of->there[s.expert].store(nullptr, std::memory_order_relaxed);
  s.of->slot_of[s.expert] = none;
  s.of = nullptr;
  s.failure = nullptr;
  free_.push_back(at);
}

void stream_experts::release(std::size_t of_block) noexcept {
  const block_experts* const of = blocks_[of_block].get();
  if (!of) return;
  const std::lock_guard held(mutex_);
  std::erase_if(used_, [&](std::size_t at) {
    if (slots_[at].of != of) return false;
    slots_[at].used = false;
    return true;
  });
}

}  // namespace nibble::inline NIBBLE_ABI

#include "device/stream_ring.hpp"

#include <nibble/base/concat.hpp>
#include <nibble/base/error.hpp>
#include <system_error>
#include <utility>

namespace nibble::inline NIBBLE_ABI {

stream_ring::stream_ring(sizes of, fill_piece fill)
    : of_(std::move(of)), fill_(std::move(fill)), slots_(of_.slots) {
  try {
    start_readers();
  } catch (...) {
    stop();
    throw;
  }
}

stream_ring::~stream_ring() {
  stop();
}

void stream_ring::stop() noexcept {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  has_work_.notify_all();
  for (std::thread& t : readers_) t.join();
}

void stream_ring::start_readers() {
  readers_.reserve(of_.readers);
  try {
    while (readers_.size() < of_.readers) {
      readers_.emplace_back([this, reader = readers_.size()] { read(reader); });
    }
  } catch (const std::system_error& e) {
    if (!readers_.empty()) return;  // fewer do it, too, only more slowly
    throw error(errc::out_of_memory,
                concat("no thread can be started that reads weights from disk: ", e.what()));
  }
}

void stream_ring::read(std::size_t reader) {
  std::unique_lock lock(mutex_);
  for (;;) {
    std::optional<work> found;
    has_work_.wait(lock, [&] { return stopping_ || !errands_.empty() || (found = next_work()); });
    if (stopping_) return;
    if (!errands_.empty()) {
      const errand what = std::move(errands_.front());
      errands_.pop_front();
      lock.unlock();
      what(reader);
      lock.lock();
      continue;
    }
    lock.unlock();
    std::exception_ptr failure;
    try {
      fill_(found->block, found->piece, reader);
    } catch (...) {
      failure = std::current_exception();
    }
    lock.lock();
    finish(*found, std::move(failure));
  }
}

// In order of turns: so a slot that becomes free always goes to the turn that comes first of those
// that lie in it, and nobody waits for a later one.
std::optional<stream_ring::work> stream_ring::next_work() {
  for (std::uint64_t turn = next_; turn < next_ + slots_.size(); ++turn) {
    const std::size_t block = block_of(turn), at = slot_of(block);
    slot& s = slots_[at];
    if (of_.pieces[block] == 0) continue;
    if (s.state == phase::free) s = {.state = phase::filling, .turn = turn};
    if (s.state != phase::filling || s.turn != turn || s.handed == of_.pieces[block]) continue;
    ++s.running;
    return work{at, block, s.handed++};
  }
  return {};
}

void stream_ring::finish(const work& done, std::exception_ptr failure) {
  slot& s = slots_[done.slot];
  --s.running;
  if (s.state == phase::dropped) {
    drop(s);
    return;
  }
  ++s.done;
  if (failure && s.state == phase::filling) {
    s.state = phase::failed;
    s.failure = std::move(failure);
  } else if (s.state == phase::filling && s.done == of_.pieces[done.block]) {
    s.state = phase::ready;
  }
  if (s.state != phase::filling) has_block_.notify_all();
}

// Nobody needs what it holds.
void stream_ring::drop(slot& s) {
  s.state = s.running > 0 ? phase::dropped : phase::free;
  s.failure = nullptr;
  if (s.state == phase::free) has_work_.notify_all();
}

void stream_ring::go_to(std::uint64_t turn) {
  next_ = turn;
  for (slot& s : slots_) {
    if (s.state == phase::used || s.state == phase::free || s.state == phase::dropped) continue;
    if (s.turn < turn) drop(s);
  }
  has_work_.notify_all();
}

stream_ring::lease stream_ring::acquire(std::size_t block) {
  const std::uint64_t blocks = of_.pieces.size();
  if (block >= blocks) {
    throw error(errc::invalid_argument,
                concat("block ", block, " was asked for; ", blocks, " pass through the ring."));
  }
  std::unique_lock lock(mutex_);
  const std::uint64_t turn = next_ + (block + blocks - block_of(next_)) % blocks;
  go_to(turn);
  // what made a block fail that was read ahead may be over by now
  for (slot& s : slots_) {
    if (s.state == phase::failed) drop(s);
  }
  slot& s = slots_[slot_of(block)];
  if (of_.pieces[block] > 0) {
    has_block_.wait(lock, [&] {
      return s.turn == turn && (s.state == phase::ready || s.state == phase::failed);
    });
    if (s.state == phase::failed) {
      const std::exception_ptr failure = std::exchange(s.failure, nullptr);
      go_to((turn / blocks + 1) * blocks);
      std::rethrow_exception(failure);
    }
    s.state = phase::used;
  }
  next_ = turn + 1;
  has_work_.notify_all();
  return {*this, slot_of(block)};
}

void stream_ring::run_soon(errand what) {
  const std::lock_guard lock(mutex_);
  errands_.push_back(std::move(what));
  has_work_.notify_one();
}

void stream_ring::release(std::size_t at) noexcept {
  const std::lock_guard lock(mutex_);
  if (slots_[at].state == phase::used) slots_[at].state = phase::free;
  has_work_.notify_all();
}

}  // namespace nibble::inline NIBBLE_ABI

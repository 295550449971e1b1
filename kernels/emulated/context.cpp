#include "emulated/context.hpp"

#include <algorithm>
#include <cstring>

namespace nibble::inline emulated_cuda::kernels {
gpu::emulated_target_facts emulated_target_facts();
}
namespace nibble::inline emulated_rdna::kernels {
gpu::emulated_target_facts emulated_target_facts();
}
namespace nibble::inline emulated_cdna::kernels {
gpu::emulated_target_facts emulated_target_facts();
}

namespace nibble::inline v0::gpu {

namespace {

constexpr std::size_t alignment = 256;
// Of memory that nothing was written to; see simt::running_block::shared.
constexpr int garbage = 0xff;

emulated_target_facts target_facts_of(emulated_target target) {
#if !defined(NIBBLE_FEWER_TARGETS)
  if (target == emulated_target::rdna) return emulated_rdna::kernels::emulated_target_facts();
  if (target == emulated_target::cdna) return emulated_cdna::kernels::emulated_target_facts();
#endif
  static_cast<void>(target);
  return emulated_cuda::kernels::emulated_target_facts();
}

// Runs what may need memory of the host.
template <typename Function>
bool with_host_memory(failure& why, Function f) noexcept {
  try {
    return f();
  } catch (const std::bad_alloc&) {
    tell(why, fault::out_of_memory, "the host has no memory left");
    return false;
  }
}

}  // namespace

void tell(failure& why, fault what, std::string_view text) noexcept {
  why.what = what;
  const std::size_t n = std::min(text.size(), sizeof why.text - 1);
  std::memcpy(why.text, text.data(), n);
  why.text[n] = 0;
}

device_facts facts_of(const emulated_options& options) {
  const emulated_target_facts target = target_facts_of(options.target);
  device_facts facts = {};
  std::strncpy(facts.name, target.name, sizeof facts.name - 1);
  std::strncpy(facts.arch, target.arch, sizeof facts.arch - 1);
  facts.warp = target.warp;
  facts.multiprocessors = 4;  // a few, so that small tests fill more than one
  facts.shared_bytes = target.shared_bytes;
  facts.shared_default = target.shared_default;
  facts.matrix_units = true;
  facts.total_bytes = options.memory;
  facts.memory_bandwidth = options.bandwidth;
  return facts;
}

emulated_context::emulated_context(const emulated_options& options)
    : options_(options),
      target_facts_(target_facts_of(options.target)),
      facts_(facts_of(options)),
      target_{static_cast<simt::launch_queue*>(this), &facts_},
      machine_({target_facts_.warp, options.order, options.seed, options.os_threads}) {}

// Without memory of the host, work could not be done, or even the reason be told.
bool emulated_context::alive(failure& why) const noexcept {
  if (host_failed_) {
    tell(why, fault::lost, "the host has no memory left");
  } else if (!lost_.empty()) {
    tell(why, fault::lost, lost_);
  }
  return !host_failed_ && lost_.empty();
}

void emulated_context::lose(const std::string& text) {
  if (lost_.empty()) lost_ = text;
}

bool emulated_context::not_recording(const char* name, failure& why) const {
  if (!recording_) return true;
  tell(why, fault::invalid, std::string(name) + " while a graph is recorded");
  return false;
}

// ---- memory ----

bool emulated_context::free_bytes(std::uint64_t& bytes, failure& why) noexcept {
  if (!alive(why)) return false;
  bytes = options_.memory - used_;
  return true;
}

bool emulated_context::take(std::size_t bytes, bool pinned, void*& memory, failure& why) {
  const char* const name = pinned ? "allocate_pinned" : "allocate";
  if (!alive(why) || !not_recording(name, why)) return false;
  const std::string what = std::string(name) + " of " + std::to_string(bytes) + " bytes: ";
  if (++n_allocations_ == options_.fail_allocation) {
    tell(why, fault::out_of_memory, what + "fails as it was asked to");
    return false;
  }
  const std::uint64_t left = options_.memory - used_;
  if (!pinned && bytes > left) {
    tell(why, fault::out_of_memory, what + std::to_string(left) + " are free");
    return false;
  }
  // exactly as many bytes as were asked for: a sanitizer then sees accesses beyond them
  memory = ::operator new (std::max<std::size_t>(bytes, 1), std::align_val_t{alignment});
  std::memset(memory, garbage, bytes);
  try {
    blocks_[static_cast<std::byte*>(memory)] = {bytes, pinned};
  } catch (...) {
    ::operator delete (memory, std::align_val_t{alignment});
    throw;
  }
  if (!pinned) used_ += bytes;
  return true;
}

void emulated_context::give_back(void* memory, bool pinned) {
  const auto found = blocks_.find(static_cast<std::byte*>(memory));
  if (found == blocks_.end() || found->second.pinned != pinned) return;
  drain();  // as GPUs do
  if (!pinned) used_ -= found->second.bytes;
  blocks_.erase(found);
  ::operator delete (memory, std::align_val_t{alignment});
}

bool emulated_context::allocate(std::size_t bytes, void*& memory, failure& why) noexcept {
  return with_host_memory(why, [&] { return take(bytes, false, memory, why); });
}
bool emulated_context::allocate_pinned(std::size_t bytes, void*& memory, failure& why) noexcept {
  return with_host_memory(why, [&] { return take(bytes, true, memory, why); });
}
void emulated_context::release(void* memory) noexcept {
  give_back(memory, false);
}
void emulated_context::release_pinned(void* memory) noexcept {
  give_back(memory, true);
}

bool emulated_context::inside(const void* address, std::size_t bytes, bool pinned) const {
  const auto* const at = static_cast<const std::byte*>(address);
  const auto after = blocks_.upper_bound(at);
  if (after == blocks_.begin()) return false;
  const auto& [start, of] = *std::prev(after);
  return of.pinned == pinned && bytes <= of.bytes &&
         static_cast<std::size_t>(at - start) <= of.bytes - bytes;
}

// ---- queues ----

// Work for the compute queue goes to the graph while one is recorded.
void emulated_context::put(queue_id queue, work what) {
  if (recording_ && queue == queue_id::compute) {
    recording_->push_back(std::move(what));
    return;
  }
  queue_state& state = state_of(queue);
  state.waiting.push_back(std::move(what));
  ++state.given;
  if (options_.eager) run_to(state, state.given);
}

void emulated_context::run_one(queue_state& queue) {
  const work what = std::move(queue.waiting.front());
  queue.waiting.pop_front();
  try {
    if (lost_.empty() && !host_failed_) what();
  } catch (const std::bad_alloc&) {
    host_failed_ = true;
  }
  ++queue.done;
}

void emulated_context::run_to(queue_state& queue, std::uint64_t position) {
  while (queue.done < position) run_one(queue);
}

void emulated_context::drain() {
  for (queue_state& queue : queues_) run_to(queue, queue.given);
}

bool emulated_context::transfer(const char* name, queue_id queue, void* to, const void* from,
                                std::size_t bytes, bool to_pinned, bool from_pinned, failure& why) {
  if (!alive(why)) return false;
  if (!inside(to, bytes, to_pinned) || !inside(from, bytes, from_pinned)) {
    const bool wrong_to = !inside(to, bytes, to_pinned);
    const bool pinned = wrong_to ? to_pinned : from_pinned;
    tell(why, fault::invalid,
         std::string(name) + " of " + std::to_string(bytes) + " bytes " +
             (wrong_to ? "to" : "from") + " what is not " +
             (pinned ? "pinned memory" : "the device's memory"));
    return false;
  }
  return with_host_memory(why, [&] {
    put(queue, [this, to, from, bytes] {
      if (++n_transfers_ == options_.fail_transfer) return lose("a transfer failed as asked to");
      std::memmove(to, from, bytes);
    });
    return true;
  });
}

bool emulated_context::upload(queue_id queue, void* to, const void* from, std::size_t bytes,
                              failure& why) noexcept {
  return transfer("upload", queue, to, from, bytes, false, true, why);
}
bool emulated_context::download(queue_id queue, void* to, const void* from, std::size_t bytes,
                                failure& why) noexcept {
  return transfer("download", queue, to, from, bytes, true, false, why);
}
bool emulated_context::copy(queue_id queue, void* to, const void* from, std::size_t bytes,
                            failure& why) noexcept {
  return transfer("copy", queue, to, from, bytes, false, false, why);
}

bool emulated_context::fill(queue_id queue, void* to, std::uint8_t byte, std::size_t bytes,
                            failure& why) noexcept {
  if (!alive(why)) return false;
  if (!inside(to, bytes, false)) {
    tell(why, fault::invalid, "fill of what is not the device's memory");
    return false;
  }
  return with_host_memory(why, [&] {
    put(queue, [to, byte, bytes] { std::memset(to, byte, bytes); });
    return true;
  });
}

bool emulated_context::finish(queue_id queue, failure& why) noexcept {
  if (queue == queue_id::compute && !not_recording("finish", why)) return false;
  run_to(state_of(queue), state_of(queue).given);
  return check_launches(why);
}

// ---- events ----

bool emulated_context::known(event_id event, failure& why) const {
  if (event >= 1 && static_cast<std::size_t>(event) <= events_.size()) return true;
  tell(why, fault::invalid, "an event that was not made");
  return false;
}

bool emulated_context::make_event(event_id& event, failure& why) noexcept {
  if (!alive(why)) return false;
  return with_host_memory(why, [&] {
    events_.emplace_back();
    event = static_cast<event_id>(events_.size());
    return true;
  });
}

bool emulated_context::record(queue_id queue, event_id event, failure& why) noexcept {
  if (!alive(why) || !known(event, why) || !not_recording("record", why)) return false;
  return with_host_memory(why, [&] {
    const auto at = static_cast<std::size_t>(event - 1);
    events_[at].queue = static_cast<int>(queue);
    events_[at].position = state_of(queue).given + 1;
    put(queue, [this, at] { events_[at].time = std::chrono::steady_clock::now(); });
    return true;
  });
}

bool emulated_context::wait_for(queue_id queue, event_id event, failure& why) noexcept {
  if (!alive(why) || !known(event, why) || !not_recording("wait_for", why)) return false;
  return with_host_memory(why, [&] {
    const event_state& state = events_[static_cast<std::size_t>(event - 1)];
    if (state.queue == static_cast<int>(queue)) return true;  // behind it anyway
    put(queue,
        [this, of = state.queue, position = state.position] { run_to(queues_[of], position); });
    return true;
  });
}

bool emulated_context::elapsed(event_id from, event_id to, float& milliseconds,
                               failure& why) noexcept {
  if (!alive(why) || !known(from, why) || !known(to, why)) return false;
  const event_state& a = events_[static_cast<std::size_t>(from - 1)];
  const event_state& b = events_[static_cast<std::size_t>(to - 1)];
  for (const event_state* e : {&a, &b}) {
    if (e->position == 0 || queues_[e->queue].done < e->position) {
      tell(why, fault::invalid, "elapsed of an event that the device has not passed");
      return false;
    }
  }
  milliseconds = std::chrono::duration<float, std::milli>(b.time - a.time).count();
  return true;
}

// ---- graphs ----

bool emulated_context::begin_graph(failure& why) noexcept {
  if (!alive(why) || !not_recording("begin_graph", why)) return false;
  return with_host_memory(why, [&] {
    recording_ = std::make_shared<graph>();
    return true;
  });
}

bool emulated_context::end_graph(graph_id& id, failure& why) noexcept {
  if (!recording_) {
    tell(why, fault::invalid, "end_graph without begin_graph");
    return false;
  }
  const std::shared_ptr<graph> recorded = std::move(recording_);
  recording_ = nullptr;
  if (!check_launches(why)) return false;
  return with_host_memory(why, [&] {
    graphs_.push_back(recorded);
    id = static_cast<graph_id>(graphs_.size());
    return true;
  });
}

bool emulated_context::launch_graph(graph_id id, failure& why) noexcept {
  if (!alive(why) || !not_recording("launch_graph", why)) return false;
  if (id < 1 || static_cast<std::size_t>(id) > graphs_.size() ||
      !graphs_[static_cast<std::size_t>(id - 1)]) {
    tell(why, fault::invalid, "a graph that was not made, or was released");
    return false;
  }
  return with_host_memory(why, [&] {
    put(queue_id::compute, [this, what = graphs_[static_cast<std::size_t>(id - 1)]] {
      for (const work& node : *what) {
        if (lost_.empty()) node();
      }
    });
    return true;
  });
}

void emulated_context::release_graph(graph_id id) noexcept {
  if (id >= 1 && static_cast<std::size_t>(id) <= graphs_.size()) {
    graphs_[static_cast<std::size_t>(id - 1)] = nullptr;
  }
}

// ---- kernels ----

// What a GPU's driver would refuse is refused now; faults show when the kernel runs.
void emulated_context::launch(simt::launch_request request) {
  const auto refuse = [&](const std::string& text) {
    if (refused_launch_.empty()) refused_launch_ = "a launch " + text;
  };
  if (request.threads < 1 || request.threads > simt::max_threads) {
    return refuse("of blocks of " + std::to_string(request.threads) + " threads");
  }
  constexpr std::uint32_t most[3] = {0x7fffffff, 65535, 65535};
  for (int i = 0; i < 3; ++i) {
    if (request.grid[i] < 1 || request.grid[i] > most[i]) {
      return refuse("of " + std::to_string(request.grid[i]) + " blocks in dimension " +
                    std::to_string(i));
    }
  }
  if (request.shared > static_cast<std::size_t>(facts_.shared_bytes)) {
    return refuse("with " + std::to_string(request.shared) + " bytes of shared memory, of " +
                  std::to_string(facts_.shared_bytes));
  }
  put(queue_id::compute, [this, kept = std::make_shared<simt::launch_request>(std::move(request))] {
    run_kernel(*kept);
  });
}

void emulated_context::run_kernel(const simt::launch_request& request) {
  if (++n_launches_ == options_.fail_launch) return lose("a kernel failed as asked to");
  std::vector<simt::memory_range> memory;
  memory.reserve(blocks_.size());
  for (const auto& [start, of] : blocks_) memory.push_back({start, start + of.bytes});
  const std::string fault = machine_.run(request, memory);
  if (!fault.empty()) lose("kernel fault in " + fault);
}

bool emulated_context::check_launches(failure& why) noexcept {
  if (!alive(why)) return false;
  if (refused_launch_.empty()) return true;
  tell(why, fault::invalid, refused_launch_);
  refused_launch_.clear();
  return false;
}

void emulated_context::close() noexcept {
  drain();
  for (const auto& [start, of] : blocks_) {
    ::operator delete (const_cast<std::byte*>(start), std::align_val_t{alignment});
  }
  delete this;
}

}  // namespace nibble::inline v0::gpu

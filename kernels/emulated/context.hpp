// One emulated device, opened.
#pragma once

#include <chrono>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <new>
#include <string>
#include <string_view>
#include <vector>

#include "emulated/emulated.hpp"
#include "emulated/simt.hpp"
#include "emulated/target.hpp"

namespace nibble::inline v0::gpu {

device_facts facts_of(const emulated_options& options);
void tell(failure& why, fault what, std::string_view text) noexcept;

class emulated_context final : public context, private simt::launch_queue {
 public:
  explicit emulated_context(const emulated_options& options);

  const device_facts& facts() const noexcept override { return facts_; }
  bool free_bytes(std::uint64_t& bytes, failure& why) noexcept override;
  bool allocate(std::size_t bytes, void*& memory, failure& why) noexcept override;
  void release(void* memory) noexcept override;
  bool allocate_pinned(std::size_t bytes, void*& memory, failure& why) noexcept override;
  void release_pinned(void* memory) noexcept override;

  bool upload(queue_id queue, void* to, const void* from, std::size_t bytes,
              failure& why) noexcept override;
  bool download(queue_id queue, void* to, const void* from, std::size_t bytes,
                failure& why) noexcept override;
  bool copy(queue_id queue, void* to, const void* from, std::size_t bytes,
            failure& why) noexcept override;
  bool fill(queue_id queue, void* to, std::uint8_t byte, std::size_t bytes,
            failure& why) noexcept override;

  bool finish(queue_id queue, failure& why) noexcept override;
  bool make_event(event_id& event, failure& why) noexcept override;
  bool record(queue_id queue, event_id event, failure& why) noexcept override;
  bool wait_for(queue_id queue, event_id event, failure& why) noexcept override;
  bool elapsed(event_id from, event_id to, float& milliseconds, failure& why) noexcept override;

  bool begin_graph(failure& why) noexcept override;
  bool end_graph(graph_id& graph, failure& why) noexcept override;
  bool launch_graph(graph_id graph, failure& why) noexcept override;
  void release_graph(graph_id graph) noexcept override;

  const kernel_table& kernels() const noexcept override { return *target_facts_.kernels; }
  const launch_target& target() noexcept override { return target_; }
  bool check_launches(failure& why) noexcept override;
  void close() noexcept override;

 private:
  using work = std::function<void()>;
  using graph = std::vector<work>;
  struct queue_state {
    std::deque<work> waiting;
    std::uint64_t given = 0, done = 0;  // counts of work
  };
  // Where in which queue it was last recorded; 0: nowhere.
  struct event_state {
    int queue = 0;
    std::uint64_t position = 0;
    std::chrono::steady_clock::time_point time = {};
  };
  struct block {
    std::size_t bytes;
    bool pinned;
  };

  void launch(simt::launch_request request) override;
  void run_kernel(const simt::launch_request& request);
  bool take(std::size_t bytes, bool pinned, void*& memory, failure& why);
  void give_back(void* memory, bool pinned);
  bool transfer(const char* name, queue_id queue, void* to, const void* from, std::size_t bytes,
                bool to_pinned, bool from_pinned, failure& why);
  bool inside(const void* address, std::size_t bytes, bool pinned) const;
  void put(queue_id queue, work what);
  void run_one(queue_state& queue);
  void run_to(queue_state& queue, std::uint64_t position);
  void drain();
  void lose(const std::string& text);
  bool alive(failure& why) const noexcept;
  bool not_recording(const char* name, failure& why) const;
  bool known(event_id event, failure& why) const;
  queue_state& state_of(queue_id queue) { return queues_[static_cast<int>(queue)]; }

  emulated_options options_;
  emulated_target_facts target_facts_;
  device_facts facts_;
  launch_target target_;
  simt::machine machine_;

  std::map<const std::byte*, block> blocks_;  // of memory, the device's and pinned
  std::uint64_t used_ = 0;
  queue_state queues_[2];
  std::vector<event_state> events_;
  std::vector<std::shared_ptr<const graph>> graphs_;
  std::shared_ptr<graph> recording_;

  std::int64_t n_allocations_ = 0, n_launches_ = 0, n_transfers_ = 0;
  std::string lost_;          // why; empty while all is well
  bool host_failed_ = false;  // lost, too, for want of the host's memory
  std::string refused_launch_;
};

}  // namespace nibble::inline v0::gpu

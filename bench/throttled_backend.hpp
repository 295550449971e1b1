// A backend that is as slow as it is told: another one's results, after at least the time that
// reading its weights would take at a given bandwidth. Stands in for a device whose speed is known.
#pragma once

#include <chrono>
#include <memory>
#include <nibble/device/backend.hpp>
#include <nibble/device/speed.hpp>
#include <nibble/formats/list.hpp>
#include <set>
#include <thread>
#include <utility>
#include <variant>

namespace bench {

struct injected_speed {
  double bytes_per_second = 4e9;  // of weights
  double run_seconds = 50e-6, link_seconds = 20e-6, link_bytes_per_second = 2e9;
};

// What a planner is told of it.
inline nibble::device_speed told(const injected_speed& injected) {
  nibble::device_speed speed;
  for (const nibble::format_info& f : nibble::format_infos) {
    speed.formats.push_back({f.id, injected.bytes_per_second, injected.bytes_per_second * 100});
  }
  for (const nibble::kv_type_info& k : nibble::all_kv_types) {
    speed.kv.push_back({k.type, 1e15, 1e15, 1e15});  // not delayed
  }
  speed.run_seconds = injected.run_seconds;
  speed.link_seconds = injected.link_seconds;
  speed.link_bytes_per_second = injected.link_bytes_per_second;
  speed.measured = true;
  return speed;
}

class throttled_program final : public nibble::program {
 public:
  throttled_program(std::unique_ptr<nibble::program> inner, double seconds,
                    const injected_speed& injected)
      : inner_(std::move(inner)), seconds_(seconds), injected_(injected) {}

  std::span<float> input() override { return inner_->input(); }
  void submit(const nibble::batch& work) override {
    start_ = clock::now();
    inner_->submit(work);
  }
  void wait() override {
    inner_->wait();
    const double crossing = 2 * injected_.link_seconds + injected_.run_seconds +
                            static_cast<double>(inner_->input().size_bytes() / max_tokens() +
                                                inner_->output().size_bytes()) /
                                injected_.link_bytes_per_second;
    const auto end = start_ + std::chrono::duration_cast<clock::duration>(
                                  std::chrono::duration<double>(seconds_ + crossing));
    while (clock::now() < end) {
      if (end - clock::now() > std::chrono::microseconds(200)) {
        std::this_thread::sleep_for(std::chrono::microseconds(100));
      }
    }
  }
  std::span<const float> output() override { return inner_->output(); }

 private:
  using clock = std::chrono::steady_clock;
  std::size_t max_tokens() {
    const std::size_t one = inner_->output().size();
    return one == 0 ? 1 : std::max<std::size_t>(inner_->input().size() / one, 1);
  }

  std::unique_ptr<nibble::program> inner_;
  double seconds_;
  injected_speed injected_;
  clock::time_point start_;
};

class throttled_backend final : public nibble::backend {
 public:
  throttled_backend(std::unique_ptr<nibble::backend> inner, const injected_speed& injected)
      : inner_(std::move(inner)), injected_(injected), info_(inner_->info()) {
    info_.kind = nibble::device_kind::emulated;
    info_.id = "throttled";
    info_.name = "throttled CPU";
  }

  const nibble::device_info& info() const noexcept override { return info_; }
  std::size_t weight_bytes(const nibble::tensor_view& t) const override {
    return inner_->weight_bytes(t);
  }
  void reserve_weights(std::size_t bytes) override { inner_->reserve_weights(bytes); }
  nibble::weight place_weight(const nibble::tensor_view& t) override {
    return inner_->place_weight(t);
  }
  void fill_weight(const nibble::weight& placed, nibble::row_range rows,
                   const std::byte* from) override {
    inner_->fill_weight(placed, rows, from);
  }
  std::size_t cache_bytes(const nibble::kv_layout& layout,
                          std::span<const std::int32_t> pages) const override {
    return inner_->cache_bytes(layout, pages);
  }
  std::unique_ptr<nibble::kv_cache> make_cache(const nibble::kv_layout& layout,
                                               std::span<const std::int32_t> pages) override {
    return inner_->make_cache(layout, pages);
  }
  nibble::workspace_size workspace_of(const nibble::recording& steps,
                                      nibble::program_limits limits) const override {
    return inner_->workspace_of(steps, limits);
  }
  void reserve_workspace(const nibble::workspace_size& size) override {
    inner_->reserve_workspace(size);
  }
  std::unique_ptr<nibble::program> make_program(nibble::recording steps,
                                                nibble::program_limits limits) override {
    const double seconds = static_cast<double>(bytes_read(steps)) / injected_.bytes_per_second;
    return std::make_unique<throttled_program>(inner_->make_program(std::move(steps), limits),
                                               seconds, injected_);
  }
  nibble::memory_use allocated() const override { return inner_->allocated(); }

 private:
  static std::size_t bytes_read(const nibble::recording& steps) {
    std::size_t bytes = 0;
    for (const nibble::step& s : steps.steps) {
      const auto* const product = std::get_if<nibble::matmul_step>(&s);
      if (!product) continue;
      for (const nibble::linear& l : product->outputs) bytes += l.matrix->matrix_bytes;
    }
    return bytes;
  }

  std::unique_ptr<nibble::backend> inner_;
  injected_speed injected_;
  nibble::device_info info_;
};

}  // namespace bench

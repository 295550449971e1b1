// A device that computes nothing and takes as long as it is told: by sleeping, or by moving a clock
// on.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <nibble/device/backend.hpp>
#include <nibble/device/speed.hpp>
#include <nibble/formats/list.hpp>
#include <thread>
#include <utility>
#include <variant>
#include <vector>

#include "device/speed_bench.hpp"

namespace test {

struct known_speed {
  double bytes_per_second = 1e8, macs_per_second = 1e9;
  double kv_bytes_per_second = 2e8, kv_macs_per_second = 4e8, prompt_macs_per_second = 5e8;
  double step_seconds = 200e-6, step_value_seconds = 1e-6;
  double attend_seconds = 50e-6, run_seconds = 100e-6;
  double link_bytes_per_second = 1e7, link_seconds = 90e-6;
};

using pass_time = std::function<void(double seconds)>;

inline void sleep_for(double seconds) {
  std::this_thread::sleep_for(std::chrono::duration<double>(seconds));
}

// What is quickly measured.
inline nibble::speed_plan small_plan() {
  nibble::speed_plan plan;
  plan.columns = plan.rows = 256;
  plan.weight_bytes = 512 << 10;
  plan.heads = 4;
  plan.heads_kv = 2;
  plan.head_length = 64;
  plan.depth = 256;
  plan.layers = 2;
  plan.prompt_tokens = 16;
  plan.seconds = 0.01;
  return plan;
}

class speed_stand_in final : public nibble::backend {
 public:
  speed_stand_in(const known_speed& known, pass_time pass)
      : known_(known),
        pass_(std::move(pass)),
        info_{.kind = nibble::device_kind::cuda, .name = "stand-in"} {}

  const nibble::device_info& info() const noexcept override { return info_; }
  std::size_t weight_bytes(const nibble::tensor_view& t) const override {
    return nibble::row_bytes(t.format, t.shape.columns()) * t.shape.rows();
  }
  void reserve_weights(std::size_t) override {}
  nibble::weight place_weight(const nibble::tensor_view& t) override {
    nibble::weight w;
    w.format = t.format;
    w.shape = t.shape;
    w.data = &nothing_;
    w.matrix_bytes = weight_bytes(t);
    return w;
  }
  void fill_weight(const nibble::weight&, nibble::row_range, const std::byte*) override {}
  std::size_t cache_bytes(const nibble::kv_layout&, std::span<const std::int32_t>) const override {
    return 0;
  }
  std::unique_ptr<nibble::kv_cache> make_cache(const nibble::kv_layout& layout,
                                               std::span<const std::int32_t> pages) override {
    return std::make_unique<cache>(layout, pages, this);
  }
  nibble::workspace_size workspace_of(const nibble::recording&,
                                      nibble::program_limits) const override {
    return {};
  }
  void reserve_workspace(const nibble::workspace_size&) override {}
  nibble::memory_use allocated() const override { return {}; }
  std::unique_ptr<nibble::program> make_program(nibble::recording steps,
                                                nibble::program_limits limits) override {
    nibble::check_recording(steps);
    return std::make_unique<program>(*this, std::move(steps), limits);
  }

 private:
  class cache final : public nibble::kv_cache {
   public:
    cache(const nibble::kv_layout& layout, std::span<const std::int32_t> pages,
          const nibble::backend* owner)
        : kv_cache(layout, pages, owner) {}
    std::size_t bytes() const noexcept override { return 0; }
    void copy_page(std::size_t, nibble::page_id, nibble::page_id) override {}
    void read_page(std::size_t, nibble::page_id, std::int32_t, std::byte*) const override {}
    void write_page(std::size_t, nibble::page_id, std::int32_t, const std::byte*) override {}
  };

  class program final : public nibble::program {
   public:
    program(const speed_stand_in& owner, nibble::recording steps, nibble::program_limits limits)
        : owner_(owner), recording_(std::move(steps)) {
      if (recording_.input) input_.resize(nibble::value_bytes(of(recording_.input), limits) / 4);
    }
    std::span<float> input() override { return input_; }
    void submit(const nibble::batch& work) override {
      seconds_ = owner_.known_.run_seconds;
      for (const nibble::step& s : recording_.steps) {
        std::visit([&](const auto& kind) { seconds_ += take(kind, work); }, s);
      }
      if (!recording_.input) return;
      const auto tokens = static_cast<double>(work.tokens.size());
      const double bytes = tokens * static_cast<double>(of(recording_.input).width) * 4;
      seconds_ += 2 * (owner_.known_.link_seconds + bytes / owner_.known_.link_bytes_per_second);
    }
    void wait() override { owner_.pass_(seconds_); }
    std::span<const float> output() override { return {}; }

   private:
    const nibble::value_info& of(nibble::value v) const { return recording_.info(v); }

    template <typename Step>
    double take(const Step&, const nibble::batch&) const {
      return 0;
    }
    double take(const nibble::matmul_step& s, const nibble::batch& work) const {
      const auto columns = static_cast<double>(of(s.in).width);
      double seconds = owner_.known_.step_seconds + columns * owner_.known_.step_value_seconds;
      for (const nibble::linear& l : s.outputs) {
        const double macs = static_cast<double>(l.matrix->shape.elements());
        seconds +=
            work.tokens.size() == 1
                ? static_cast<double>(l.matrix->matrix_bytes) / owner_.known_.bytes_per_second
                : macs * static_cast<double>(work.tokens.size()) / owner_.known_.macs_per_second;
      }
      return seconds;
    }
    double take(const nibble::attend_step& s, const nibble::batch& work) const {
      const nibble::batch_chunk& chunk = work.chunks[0];
      const nibble::kv_layout& layout = chunk.cache->layout();
      const double macs = s.spec.n_head * (s.spec.key_length + s.spec.value_length);
      const double seen = chunk.n_past + (chunk.count + 1) / 2.0;
      const known_speed& k = owner_.known_;
      if (chunk.count > 1) return chunk.count * seen * macs / k.prompt_macs_per_second;
      const auto bytes = static_cast<double>(layout.token_bytes(layout.layers[0]));
      return k.attend_seconds +
             seen * (bytes / k.kv_bytes_per_second + macs / k.kv_macs_per_second);
    }

    const speed_stand_in& owner_;
    nibble::recording recording_;
    std::vector<float> input_;
    double seconds_ = 0;
  };

  const known_speed& known_;
  pass_time pass_;
  nibble::device_info info_;
  std::byte nothing_{};
};

}  // namespace test

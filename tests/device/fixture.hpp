// Small random weights, recordings over them, and running these on a backend.
#pragma once

#include <cstring>
#include <deque>
#include <map>
#include <memory>
#include <nibble/base/half.hpp>
#include <nibble/device/cpu.hpp>
#include <nibble/device/recording.hpp>
#include <random>
#include <vector>

#include "reference.hpp"

namespace test {

class weight_store {
 public:
  explicit weight_store(unsigned seed = 1) : random_(seed) {}

  const nibble::weight* f32(nibble::shape shape, float centre = 0, float spread = 1) {
    std::uniform_real_distribution<float> uniform(centre - spread, centre + spread);
    std::vector<float> values(shape.elements());
    for (float& v : values) v = uniform(random_);
    return keep(nibble::id_of<nibble::formats::f32>, shape, values.data(), values.size() * 4);
  }

  // Blocks of 32: a binary16 scale, then 32 signed bytes (the GGUF definition of Q8_0).
  const nibble::weight* q8_0(nibble::shape shape) {
    std::uniform_int_distribution<int> byte(-127, 127);
    std::uniform_real_distribution<float> scale(0.001f, 0.01f);
    std::vector<std::uint8_t> bytes;
    for (std::uint64_t block = 0; block < shape.elements() / 32; ++block) {
      const std::uint16_t bits = nibble::to_half(scale(random_)).bits;
      bytes.push_back(static_cast<std::uint8_t>(bits & 255));
      bytes.push_back(static_cast<std::uint8_t>(bits >> 8));
      for (int i = 0; i < 32; ++i) bytes.push_back(static_cast<std::uint8_t>(byte(random_)));
    }
    return keep(nibble::id_of<nibble::formats::q8_0>, shape, bytes.data(), bytes.size());
  }

  const nibble::weight* matrix(bool quantised, nibble::shape shape) {
    if (quantised) return q8_0(shape);
    const float spread = 1.0f / std::sqrt(static_cast<float>(shape.columns()));
    return f32(shape, 0, 2 * spread);
  }

  // From now on the weights lie in this backend.
  void import_into(nibble::backend& to) {
    std::size_t bytes = 0;
    for (const stored_weight& w : weights_) bytes += to.weight_bytes(view(w));
    to.reserve_weights(bytes);
    for (stored_weight& w : weights_) {
      static_cast<nibble::weight&>(w) = to.import_weight(view(w));
    }
  }

 private:
  static nibble::tensor_view view(const stored_weight& w) {
    return {w.format, w.shape, w.bytes.data()};
  }

  const nibble::weight* keep(nibble::format_id format, nibble::shape shape, const void* data,
                             std::size_t bytes) {
    stored_weight& w = weights_.emplace_back();
    w.bytes.resize(bytes);
    std::memcpy(w.bytes.data(), data, bytes);
    static_cast<nibble::weight&>(w) = {format, shape, w.bytes.data(), bytes / shape.extent[2]};
    return &w;
  }

  std::mt19937 random_;
  std::deque<stored_weight> weights_;  // a deque: weights keep their addresses
};

inline nibble::shape shape_of(std::uint64_t columns, std::uint64_t rows = 1,
                              std::uint64_t matrices = 1) {
  nibble::shape s;
  s.extent = {columns, rows, matrices, 1};
  return s;
}

inline matrix_rows random_rows(std::size_t n, std::size_t width, unsigned seed = 7) {
  std::mt19937 random(seed);
  std::uniform_real_distribution<float> uniform(-2, 2);
  matrix_rows out(n, std::vector<double>(width));
  for (auto& row : out) {
    for (double& e : row) e = static_cast<double>(uniform(random));
  }
  return out;
}

// A cache's layout, and how many tokens a sequence may have.
struct cache_shape {
  nibble::kv_layout layout;
  std::int32_t n_ctx = 0;
};

// A backend, one program on it, and a cache for all sequences.
class runner {
 public:
  static constexpr int max_sequences = 4;

  runner(const nibble::recording& r, weight_store& weights, nibble::cpu_options options,
         nibble::program_limits limits, const cache_shape& shape = {})
      : runner(r, weights, nibble::make_cpu_backend(options), limits, shape) {}
  runner(const nibble::recording& r, weight_store& weights,
         std::unique_ptr<nibble::backend> backend, nibble::program_limits limits,
         const cache_shape& shape = {})
      : backend_(std::move(backend)), n_ctx_(shape.n_ctx) {
    weights.import_into(*backend_);
    program_ = backend_->make_program(r, limits);
    if (n_ctx_ == 0) return;
    const auto pages = static_cast<std::int32_t>(nibble::pages_for(n_ctx_) * max_sequences);
    cache_ = backend_->make_cache(
        shape.layout, std::vector<std::int32_t>(nibble::group_layers(shape.layout).size(), pages));
  }

  std::vector<float> run(const reference_batch& b, const matrix_rows& input = {}) {
    const auto staging = program_->input();
    std::size_t at = 0;
    for (const auto& row : input) {
      for (const double e : row) staging[at++] = static_cast<float>(e);
    }
    std::vector<nibble::batch_chunk> chunks;
    for (const auto& c : b.chunks) {
      chunks.push_back({cache(), table(c.sequence), c.first, c.count, c.n_past});
    }
    program_->submit({b.tokens, chunks, b.outputs});
    program_->wait();
    const auto out = program_->output();
    return {out.begin(), out.end()};
  }

  nibble::kv_cache* cache() { return cache_.get(); }
  // A sequence's pages, the last ones first.
  nibble::kv_table* table(int sequence) {
    auto& t = tables_[sequence];
    if (!t) {
      t = std::make_unique<nibble::kv_table>();
      const auto n = static_cast<std::int32_t>(nibble::pages_for(n_ctx_));
      t->groups.resize(cache_ ? cache_->groups().size() : 0);
      for (auto& group : t->groups) {
        for (std::int32_t i = n; i-- > 0;) group.tail.push_back(sequence * n + i);
      }
    }
    return t.get();
  }
  nibble::backend& backend() { return *backend_; }
  nibble::program& program() { return *program_; }

 private:
  std::unique_ptr<nibble::backend> backend_;
  std::unique_ptr<nibble::program> program_;
  std::int32_t n_ctx_;
  std::unique_ptr<nibble::kv_cache> cache_;
  std::map<int, std::unique_ptr<nibble::kv_table>> tables_;
};

// One sequence, all tokens from the start, all outputs wanted.
inline reference_batch plain_batch(std::int32_t n, std::int32_t n_past = 0) {
  reference_batch b;
  b.chunks.push_back({0, 0, n, n_past});
  for (std::int32_t i = 0; i < n; ++i) {
    b.tokens.push_back((i + n_past) * 7 % 11);
    b.outputs.push_back(i);
  }
  return b;
}

// The greatest difference, as a share of the greatest expected magnitude.
inline double difference(const std::vector<float>& got, const matrix_rows& expected) {
  double most = 0, scale = 1e-30;
  std::size_t i = 0;
  for (const auto& row : expected) {
    for (const double e : row) {
      scale = std::max(scale, std::abs(e));
      if (i >= got.size()) return 1e30;
      const double d = std::abs(static_cast<double>(got[i++]) - e);
      if (!(d <= most)) most = d;  // a NaN counts
    }
  }
  return i == got.size() ? most / scale : 1e30;
}

}  // namespace test

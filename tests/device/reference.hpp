// Every step in double precision, written from the comments of nibble/device/steps.hpp: the
// plainest loops, no blocking, no threads.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <map>
#include <nibble/base/half.hpp>
#include <nibble/device/batch.hpp>
#include <nibble/device/recording.hpp>
#include <nibble/formats/decode.hpp>
#include <nibble/formats/list.hpp>
#include <numeric>
#include <utility>
#include <variant>
#include <vector>

namespace test {

using matrix_rows = std::vector<std::vector<double>>;

// A sequence's chunk in a batch: as nibble::batch_chunk, with a number instead of a cache.
struct reference_chunk {
  int sequence;
  std::int32_t first, count, n_past;
};

struct reference_batch {
  std::vector<nibble::token> tokens;
  std::vector<reference_chunk> chunks;
  std::vector<std::int32_t> outputs;
};

// A weight of these tests: as a file would have it, whatever a backend makes of it.
struct stored_weight : nibble::weight {
  std::vector<std::byte> bytes;
};

// Row `row` over all matrices.
inline std::vector<double> weight_row(const nibble::weight& w, std::size_t row) {
  const std::size_t columns = w.shape.columns();
  const auto& stored = static_cast<const stored_weight&>(w);
  const auto* data = stored.bytes.data() + row * nibble::row_bytes(w.format, columns);
  std::vector<float> out(columns);
  nibble::decode_row(w.format, data, columns, out.data());
  return {out.begin(), out.end()};
}

inline double dot(const std::vector<double>& a, const double* b) {
  return std::inner_product(a.begin(), a.end(), b, 0.0);
}

// As a Walsh-Hadamard transform is defined: entry (i, j) of the matrix is 1 / sqrt(n), negative
// where i and j have an odd number of bits in common.
inline void hadamard_of_blocks(double* x, std::size_t length) {
  const std::size_t n = length & (~length + 1);
  for (std::size_t first = 0; first < length; first += n) {
    const std::vector<double> in(x + first, x + first + n);
    for (std::size_t i = 0; i < n; ++i) {
      double sum = 0;
      for (std::size_t j = 0; j < n; ++j) sum += std::popcount(i & j) % 2 == 0 ? in[j] : -in[j];
      x[first + i] = sum / std::sqrt(static_cast<double>(n));
    }
  }
}

// A row of a head as a cache of this type gives it back.
inline void store_and_load(double* x, std::size_t length, nibble::kv_type type, bool rotated) {
  if (rotated) hadamard_of_blocks(x, length);
  std::vector<float> row(x, x + length);
  const auto& info = nibble::info_of(type);
  if (nibble::has_scales(type)) {
    const auto n = static_cast<std::int64_t>(length);
    std::vector<std::byte> codes(nibble::code_bytes(type, n));
    std::vector<nibble::half> scales(nibble::scale_bytes(type, n) / sizeof(nibble::half));
    nibble::quantise_head_row(row.data(), n, info.bits, info.values_of_scale, codes.data(),
                              scales.data());
    nibble::decode_head_row(codes.data(), scales.data(), n, info.bits, info.values_of_scale,
                            row.data());
  }
  for (float& e : row) {
    if (type == nibble::kv_type::f16) e = nibble::to_float(nibble::to_half(e));
    if (type == nibble::kv_type::bf16) e = nibble::to_float(nibble::to_bfloat16(e));
  }
  std::copy(row.begin(), row.end(), x);
  if (rotated) hadamard_of_blocks(x, length);
}

class reference {
 public:
  explicit reference(const nibble::recording& r,
                     nibble::kv_layout layout = {{}, nibble::kv_type::f32, nibble::kv_type::f32})
      : r_(r), layout_(std::move(layout)) {}

  // Forgets n tokens of a sequence after the first `keep`; those behind them move up. Of caches
  // that store keys and values as they are.
  void drop(int sequence, std::int32_t keep, std::int32_t n) {
    for (auto& [key, rows] : cache_) {
      if (key.first != sequence) continue;
      for (matrix_rows* part : {&rows.keys, &rows.values, &rows.unturned}) {
        part->erase(part->begin() + keep, part->begin() + keep + n);
      }
    }
  }

  void run(const reference_batch& b, const matrix_rows& input = {}) {
    batch_ = &b;
    values_.clear();
    for (const auto& info : r_.values) {
      const auto n =
          info.rows == nibble::value_rows::per_token ? b.tokens.size() : b.outputs.size();
      values_.emplace_back(n, std::vector<double>(static_cast<std::size_t>(info.width)));
    }
    if (r_.input) at(r_.input) = input;
    for (const auto& s : r_.steps) {
      std::visit([this](const auto& kind) { step(kind); }, s);
    }
  }

  matrix_rows& at(nibble::value v) { return values_[static_cast<std::size_t>(v.id)]; }
  const matrix_rows& output() { return at(r_.output); }

  // Called before each product, as nibble::matmul_observer.
  std::function<void(const nibble::weight&, std::size_t which, const double* x)> observe =
      [](const nibble::weight&, std::size_t, const double*) {};

 private:
  static std::vector<double> normed(const nibble::rms_norm& n, const double* x, std::size_t size) {
    double squares = 0;
    for (std::size_t i = 0; i < size; ++i) squares += x[i] * x[i];
    const double factor =
        1 / std::sqrt(squares / static_cast<double>(size) + static_cast<double>(n.epsilon));
    std::vector<double> out = weight_row(*n.gain, 0);
    for (std::size_t i = 0; i < size; ++i) out[i] *= x[i] * factor;
    return out;
  }

  static void softmax(std::vector<double>& x) {
    const double greatest = *std::max_element(x.begin(), x.end());
    double sum = 0;
    for (double& e : x) sum += e = std::exp(e - greatest);
    for (double& e : x) e /= sum;
  }

  void step(const nibble::embed_step& s) {
    for (std::size_t t = 0; t < batch_->tokens.size(); ++t) {
      auto row = weight_row(*s.table, static_cast<std::size_t>(batch_->tokens[t]));
      for (double& e : row) e *= static_cast<double>(s.scale);
      at(s.out)[t] = row;
    }
  }

  void step(const nibble::norm_step& s) {
    const matrix_rows in = at(s.in);
    for (std::size_t t = 0; t < in.size(); ++t) {
      at(s.out)[t] = normed(s.norm, in[t].data(), in[t].size());
    }
  }

  // to [rows] (+)= scale * (matrix[expert] * x) + bias[expert]
  static void multiply(const nibble::linear& l, std::size_t expert, const double* x, double* to,
                       bool accumulate) {
    const std::size_t n = l.matrix->shape.extent[1];
    for (std::size_t r = 0; r < n; ++r) {
      double sum = dot(weight_row(*l.matrix, expert * n + r), x);
      if (l.scale) sum *= weight_row(*l.scale, 0)[0];
      if (l.bias) sum += weight_row(*l.bias, expert)[r];
      to[r] = accumulate ? to[r] + sum : sum;
    }
  }

  void step(const nibble::matmul_step& s) {
    const matrix_rows in = at(s.in);
    for (std::size_t t = 0; t < in.size(); ++t) {
      const auto x = s.norm ? normed(*s.norm, in[t].data(), in[t].size()) : in[t];
      for (const auto& l : s.outputs) {
        observe(*l.matrix, 0, x.data());
        multiply(l, 0, x.data(), at(l.out)[t].data(), s.accumulate);
      }
    }
  }

  static void rotate(const nibble::rope_spec& rope, double position, double* x) {
    const std::size_t n = rope.frequencies.size();
    for (std::size_t i = 0; i < n && rope.style != nibble::rope_style::none; ++i) {
      const bool neox = rope.style == nibble::rope_style::neox;
      double &a = x[neox ? i : 2 * i], &b = x[neox ? i + n : 2 * i + 1];
      const double angle = position * rope.frequencies[i];
      const double c = std::cos(angle) * static_cast<double>(rope.magnitude);
      const double d = std::sin(angle) * static_cast<double>(rope.magnitude);
      std::tie(a, b) = std::pair(a * c - b * d, a * d + b * c);
    }
  }

  void turn_heads(std::vector<double>& row, const std::optional<nibble::rms_norm>& norm,
                  const nibble::attention_spec& a, double position) {
    const auto length = static_cast<std::size_t>(a.key_length);
    for (std::size_t at = 0; at < row.size(); at += length) {
      if (norm) {
        const auto out = normed(*norm, row.data() + at, length);
        std::copy(out.begin(), out.end(), row.begin() + static_cast<std::ptrdiff_t>(at));
      }
      rotate(a.rope, position, row.data() + at);
    }
  }

  static std::vector<double> stored(std::vector<double> row, std::int32_t length,
                                    nibble::kv_type type, bool rotated) {
    const auto n = static_cast<std::size_t>(length);
    if (type == nibble::kv_type::f32) return row;
    for (std::size_t at = 0; at < row.size(); at += n) {
      store_and_load(row.data() + at, n, type, rotated);
    }
    return row;
  }

  void step(const nibble::attend_step& s) {
    const auto& a = s.spec;
    for (const auto& chunk : batch_->chunks) {
      cached& c = cache_[{chunk.sequence, s.layer}];
      for (matrix_rows* rows : {&c.keys, &c.values, &c.unturned}) {
        rows->resize(static_cast<std::size_t>(chunk.n_past));
      }
      // others may have been dropped
      for (std::size_t i = 0; layout_.key == nibble::kv_type::f32 && i < c.keys.size(); ++i) {
        c.keys[i] = c.unturned[i];
        turn_heads(c.keys[i], a.k_norm, a, static_cast<double>(i));
      }
      for (std::int32_t i = 0; i < chunk.count; ++i) {
        const auto t = static_cast<std::size_t>(chunk.first + i);
        const std::int32_t position = chunk.n_past + i;
        auto q = at(s.q)[t], k = at(s.k)[t];
        c.unturned.push_back(k);
        turn_heads(q, a.q_norm, a, position);
        turn_heads(k, a.k_norm, a, position);
        c.keys.push_back(stored(k, a.key_length, layout_.key, layout_.rotate_key));
        c.values.push_back(stored(at(s.v)[t], a.value_length, layout_.value, layout_.rotate_value));
        double scale = static_cast<double>(a.scale);
        if (a.temperature_scale != 0) {
          scale *= 1 + static_cast<double>(a.temperature_scale) *
                           std::log(1 + std::floor(position / a.temperature_period));
        }
        for (std::int32_t h = 0; h < a.n_head; ++h) {
          attend(a, h, scale, q, c.keys, c.values, at(s.out)[t]);
        }
      }
    }
  }

  static void attend(const nibble::attention_spec& a, std::int32_t h, double scale,
                     const std::vector<double>& q, const matrix_rows& keys,
                     const matrix_rows& values, std::vector<double>& out) {
    const auto kl = static_cast<std::size_t>(a.key_length);
    const auto vl = static_cast<std::size_t>(a.value_length);
    const auto head = static_cast<std::size_t>(h);
    const auto kv = head / static_cast<std::size_t>(a.n_head / a.n_head_kv);
    const auto window = static_cast<std::size_t>(a.window);
    const std::size_t begin = window > 0 && keys.size() > window ? keys.size() - window : 0;
    std::vector<double> scores;
    for (std::size_t j = begin; j < keys.size(); ++j) {
      double score = 0;
      for (std::size_t i = 0; i < kl; ++i) score += q[head * kl + i] * keys[j][kv * kl + i];
      score *= scale;
      const auto cap = static_cast<double>(a.softcap);
      scores.push_back(cap > 0 ? cap * std::tanh(score / cap) : score);
    }
    if (a.sinks) scores.push_back(weight_row(*a.sinks, 0)[head]);
    softmax(scores);
    for (std::size_t i = 0; i < vl; ++i) {
      double sum = 0;
      for (std::size_t j = begin; j < keys.size(); ++j) {
        sum += scores[j - begin] * values[j][kv * vl + i];
      }
      out[head * vl + i] = sum;
    }
  }

  static double gated(nibble::gate_kind kind, double g, double u) {
    switch (kind) {
      case nibble::gate_kind::silu:
        return g / (1 + std::exp(-g)) * u;
      case nibble::gate_kind::gelu_tanh:
        g = nibble::to_float(nibble::to_half(static_cast<float>(g)));  // as the kernels do
        return 0.5 * g * (1 + std::tanh(std::sqrt(2 / M_PI) * (g + 0.044715 * g * g * g))) * u;
      case nibble::gate_kind::relu_squared:
        return g > 0 ? g * g * u : 0;
      case nibble::gate_kind::swiglu_clamped:
        g = std::min(g, 7.0);
        u = std::clamp(u, -7.0, 7.0);
        return g / (1 + std::exp(-1.702 * g)) * (u + 1);
    }
    return 0;
  }

  void step(const nibble::gate_step& s) {
    for (std::size_t t = 0; t < at(s.gate).size(); ++t) {
      for (std::size_t i = 0; i < at(s.gate)[t].size(); ++i) {
        at(s.out)[t][i] = gated(s.kind, at(s.gate)[t][i], at(s.up)[t][i]);
      }
    }
  }

  void step(const nibble::add_step& s) {
    for (std::size_t t = 0; t < at(s.in).size(); ++t) {
      const auto& in = at(s.in)[t];
      const auto x = s.norm ? normed(*s.norm, in.data(), in.size()) : in;
      for (std::size_t i = 0; i < x.size(); ++i) at(s.out)[t][i] += x[i];
    }
  }

  void step(const nibble::route_step& s) {
    for (std::size_t t = 0; t < at(s.logits).size(); ++t) {
      auto p = at(s.logits)[t];
      std::vector<std::size_t> order(p.size());
      std::iota(order.begin(), order.end(), std::size_t{0});
      std::stable_sort(order.begin(), order.end(),
                       [&](std::size_t a, std::size_t b) { return p[a] > p[b]; });
      const std::size_t n_used = at(s.selection)[t].size();
      if (s.kind == nibble::route_kind::softmax_then_top) softmax(p);
      std::vector<double> w;
      for (std::size_t i = 0; i < n_used; ++i) w.push_back(p[order[i]]);
      if (s.kind == nibble::route_kind::top_then_softmax) softmax(w);
      const double sum = s.normalise ? std::accumulate(w.begin(), w.end(), 0.0) : 1;
      for (std::size_t i = 0; i < n_used; ++i) {
        at(s.selection)[t][i] = static_cast<double>(order[i]);
        at(s.weights)[t][i] = w[i] / sum * static_cast<double>(s.scale);
      }
    }
  }

  void step(const nibble::expert_matmul_step& s) {
    for (std::size_t t = 0; t < at(s.in).size(); ++t) {
      for (std::size_t slot = 0; slot < at(s.selection)[t].size(); ++slot) {
        const auto expert = static_cast<std::size_t>(at(s.selection)[t][slot]);
        for (const auto& l : s.outputs) {
          const std::size_t columns = l.matrix->shape.columns();
          const double* x = at(s.in)[t].data() + (s.in_per_slot ? slot * columns : 0);
          observe(*l.matrix, expert, x);
          multiply(l, expert, x, at(l.out)[t].data() + slot * l.matrix->shape.extent[1], false);
        }
      }
    }
  }

  void step(const nibble::combine_step& s) {
    for (std::size_t t = 0; t < at(s.out).size(); ++t) {
      const std::size_t width = at(s.out)[t].size();
      for (std::size_t slot = 0; slot < at(s.weights)[t].size(); ++slot) {
        for (std::size_t i = 0; i < width; ++i) {
          at(s.out)[t][i] += at(s.weights)[t][slot] * at(s.in)[t][slot * width + i];
        }
      }
    }
  }

  void step(const nibble::select_step& s) {
    for (std::size_t i = 0; i < batch_->outputs.size(); ++i) {
      at(s.out)[i] = at(s.in)[static_cast<std::size_t>(batch_->outputs[i])];
    }
  }

  void step(const nibble::softcap_step& s) {
    const auto cap = static_cast<double>(s.cap);
    for (auto& row : at(s.x)) {
      for (double& e : row) e = cap * std::tanh(e / cap);
    }
  }

  const nibble::recording& r_;
  nibble::kv_layout layout_;
  const reference_batch* batch_ = nullptr;
  std::vector<matrix_rows> values_;
  struct cached {
    matrix_rows keys, values;
    matrix_rows unturned;  // keys before norm and rotation
  };
  std::map<std::pair<int, int>, cached> cache_;  // by sequence and layer
};

}  // namespace test

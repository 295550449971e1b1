// Recordings that the tests share: a small transformer with a choice of parts.
#pragma once

#include <cmath>

#include "fixture.hpp"

namespace test {

struct small_model {
  int n_embd = 64, n_ff = 96, n_vocab = 40, n_layer = 2;
  int n_head = 4, n_head_kv = 2, key_length = 16, value_length = 16;
  bool quantised = false, biases = false, scales = false, experts = false, post_norm = false;
  nibble::rope_style rope = nibble::rope_style::neox;
  int window = 0;
  float attention_softcap = 0, output_softcap = 0;
  bool sinks = false, head_norms = false;
  float temperature_scale = 0;
  nibble::gate_kind gate = nibble::gate_kind::silu;

  cache_shape layout(std::int32_t n_ctx, nibble::kv_type type = nibble::kv_type::f32) const {
    cache_shape c;
    for (int layer = 0; layer < n_layer; ++layer) {
      c.layout.layers.push_back({n_head_kv, key_length, value_length, layer % 2 == 0 ? window : 0});
    }
    c.layout.key = c.layout.value = type;
    c.n_ctx = n_ctx;
    return c;
  }

  nibble::recording record(weight_store& w) const {
    nibble::recording r;
    const nibble::value x = r.make(n_embd);
    r.emit(nibble::embed_step{w.matrix(quantised, u(n_embd, n_vocab)), 1.5f, x});
    for (int layer = 0; layer < n_layer; ++layer) {
      attention(r, w, x, layer);
      experts ? expert_half(r, w, x) : dense_half(r, w, x);
    }
    head(r, w, x);
    return r;
  }

 private:
  template <typename... N>
  static nibble::shape u(N... n) {
    return shape_of(static_cast<std::uint64_t>(n)...);
  }
  static nibble::rms_norm norm(weight_store& w, int n) { return {w.f32(u(n), 1, 0.5f), 1e-5f}; }

  nibble::linear linear(nibble::recording& r, weight_store& w, int columns, int rows) const {
    const nibble::weight* bias = biases ? w.f32(u(rows)) : nullptr;
    return {w.matrix(quantised, u(columns, rows)), bias, r.make(rows), scale(w)};
  }

  // far from 1, each another
  const nibble::weight* scale(weight_store& w) const {
    return scales ? w.f32(u(1), 1.5f, 1.25f) : nullptr;
  }

  // x += matrix * in, by a step of its own if it is normalised first
  void add_to(nibble::recording& r, weight_store& w, nibble::value in, nibble::value x) const {
    auto out = linear(r, w, static_cast<int>(r.info(in).width), n_embd);
    if (post_norm) {
      r.emit(nibble::matmul_step{in, {}, {out}, false});
      r.emit(nibble::add_step{out.out, x, norm(w, n_embd)});
    } else {
      out.out = x;
      r.emit(nibble::matmul_step{in, {}, {out}, true});
    }
  }

  void attention(nibble::recording& r, weight_store& w, nibble::value x, int layer) const {
    const auto q = linear(r, w, n_embd, n_head * key_length);
    const auto k = linear(r, w, n_embd, n_head_kv * key_length);
    const auto v = linear(r, w, n_embd, n_head_kv * value_length);
    r.emit(nibble::matmul_step{x, norm(w, n_embd), {q, k, v}, false});
    nibble::attend_step a{q.out, k.out, v.out, r.make(n_head * value_length), layer, {}};
    a.spec.n_head = n_head;
    a.spec.n_head_kv = n_head_kv;
    a.spec.key_length = key_length;
    a.spec.value_length = value_length;
    a.spec.scale = 1 / std::sqrt(static_cast<float>(key_length));
    a.spec.window = layer % 2 == 0 ? window : 0;
    a.spec.softcap = attention_softcap;
    a.spec.rope.style = rope;
    // the second layer turns with other frequencies, and leaves the end of the head alone
    for (int i = 0; i < key_length / 2 - layer; ++i) {
      a.spec.rope.frequencies.push_back(std::pow(100.0 * (layer + 1), -2.0 * i / key_length));
    }
    a.spec.rope.magnitude = 1.125f;
    if (head_norms) {
      a.spec.q_norm = norm(w, key_length);
      a.spec.k_norm = norm(w, key_length);
    }
    if (sinks) a.spec.sinks = w.f32(u(n_head));
    a.spec.temperature_scale = temperature_scale;
    a.spec.temperature_period = 4;
    r.emit(a);
    add_to(r, w, a.out, x);
  }

  void dense_half(nibble::recording& r, weight_store& w, nibble::value x) const {
    const auto g = linear(r, w, n_embd, n_ff), up = linear(r, w, n_embd, n_ff);
    r.emit(nibble::matmul_step{x, norm(w, n_embd), {g, up}, false});
    r.emit(nibble::gate_step{g.out, up.out, g.out, gate});
    add_to(r, w, g.out, x);
  }

  void expert_half(nibble::recording& r, weight_store& w, nibble::value x) const {
    const int n_expert = 6, n_used = 3;
    const nibble::value y = r.make(n_embd);
    r.emit(nibble::norm_step{x, y, norm(w, n_embd)});
    const nibble::linear router{w.f32(u(n_embd, n_expert)), nullptr, r.make(n_expert)};
    r.emit(nibble::matmul_step{y, {}, {router}, false});
    const nibble::value selection =
        r.make({n_used, nibble::value_rows::per_token, nibble::value_element::i32});
    const nibble::value weights = r.make(n_used);
    r.emit(nibble::route_step{
        router.out, selection, weights,
        biases ? nibble::route_kind::top_then_softmax : nibble::route_kind::softmax_then_top, true,
        1.25f});
    const auto product = [&](int columns, int rows) {
      const nibble::weight* bias = biases ? w.f32(u(rows, n_expert)) : nullptr;
      return nibble::linear{w.matrix(quantised, u(columns, rows, n_expert)), bias,
                            r.make(n_used * rows), scale(w)};
    };
    const auto g = product(n_embd, n_ff), up = product(n_embd, n_ff), down = product(n_ff, n_embd);
    r.emit(nibble::expert_matmul_step{y, selection, false, {g, up}});
    r.emit(nibble::gate_step{g.out, up.out, up.out, gate});
    r.emit(nibble::expert_matmul_step{up.out, selection, true, {down}});
    r.emit(nibble::combine_step{down.out, weights, x});
  }

  void head(nibble::recording& r, weight_store& w, nibble::value x) const {
    const nibble::value_info wide{n_embd, nibble::value_rows::per_output};
    const nibble::value_info logits{n_vocab, nibble::value_rows::per_output};
    const nibble::value y = r.make(wide);
    r.emit(nibble::select_step{x, y});
    r.output = r.make(logits);
    const nibble::linear out{w.matrix(quantised, u(n_embd, n_vocab)), nullptr, r.output};
    r.emit(nibble::matmul_step{y, norm(w, n_embd), {out}, false});
    if (output_softcap > 0) r.emit(nibble::softcap_step{r.output, output_softcap});
  }
};

}  // namespace test

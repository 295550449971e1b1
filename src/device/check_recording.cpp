#include <cmath>
#include <cstdint>
#include <nibble/base/concat.hpp>
#include <nibble/base/error.hpp>
#include <nibble/device/recording.hpp>
#include <nibble/device/step_values.hpp>
#include <nibble/formats/list.hpp>
#include <string>
#include <type_traits>
#include <vector>

namespace nibble::inline NIBBLE_ABI {
namespace {

constexpr const char* name_of(const embed_step&) {
  return "embed";
}
constexpr const char* name_of(const norm_step&) {
  return "norm";
}
constexpr const char* name_of(const matmul_step&) {
  return "matmul";
}
constexpr const char* name_of(const attend_step&) {
  return "attend";
}
constexpr const char* name_of(const gate_step&) {
  return "gate";
}
constexpr const char* name_of(const add_step&) {
  return "add";
}
constexpr const char* name_of(const route_step&) {
  return "route";
}
constexpr const char* name_of(const expert_matmul_step&) {
  return "expert_matmul";
}
constexpr const char* name_of(const combine_step&) {
  return "combine";
}
constexpr const char* name_of(const select_step&) {
  return "select";
}
constexpr const char* name_of(const softcap_step&) {
  return "softcap";
}

// Checks one step; `where` is "step 3 (matmul)".
class step_checker {
 public:
  step_checker(const recording& r, std::size_t index) : r_(r), index_(index) {}

  void check(const embed_step& s) const {
    const weight& table = given(s.table, "table");
    width(s.out, "out", table.shape.columns());
    per_token(s.out, "out");
  }

  void check(const norm_step& s) const {
    width(s.out, "out", of(s.in).width);
    same_rows(s.in, s.out, "out");
    norm(s.norm, of(s.in).width, "norm");
  }

  void check(const matmul_step& s) const {
    if (s.norm) norm(*s.norm, of(s.in).width, "norm");
    require(!s.outputs.empty(), "has no outputs");
    for (const linear& l : s.outputs) {
      product(l, of(s.in).width, 1);
      width(l.out, "out", l.matrix->shape.extent[1]);
      same_rows(s.in, l.out, "out");
    }
    apart(s.outputs, s.in);
  }

  void check(const attend_step& s) const {
    const attention_spec& a = s.spec;
    require(s.layer >= 0, "layer is ", s.layer);
    require(a.n_head > 0 && a.n_head_kv > 0 && a.n_head % a.n_head_kv == 0, a.n_head,
            " heads cannot share ", a.n_head_kv, " key/value heads evenly");
    require(a.key_length > 0 && a.value_length > 0, "key_length is ", a.key_length,
            ", value_length is ", a.value_length);
    width(s.q, "q", product_of(a.n_head, a.key_length));
    width(s.k, "k", product_of(a.n_head_kv, a.key_length));
    width(s.v, "v", product_of(a.n_head_kv, a.value_length));
    width(s.out, "out", product_of(a.n_head, a.value_length));
    for (const value v : {s.q, s.k, s.v, s.out}) per_token(v, "q, k, v, out");
    for (const value v : {s.q, s.k, s.v}) different(v, s.out, "q, k or v and out");
    different(s.q, s.k, "q and k");
    different(s.q, s.v, "q and v");
    different(s.k, s.v, "k and v");
    if (a.q_norm) norm(*a.q_norm, a.key_length, "q_norm");
    if (a.k_norm) norm(*a.k_norm, a.key_length, "k_norm");
    if (a.sinks) f32_weight(*a.sinks, "sinks", static_cast<std::uint64_t>(a.n_head));
    const bool rotates = a.rope.style != rope_style::none;
    require(!rotates || 2 * a.rope.frequencies.size() <= static_cast<std::size_t>(a.key_length),
            "rope has ", a.rope.frequencies.size(), " frequencies for heads of ", a.key_length,
            "; at most half as many");
    require(a.window >= 0, "window is ", a.window);
    require(a.temperature_scale == 0 || a.temperature_period > 0, "temperature_period is ",
            a.temperature_period);
  }

  void check(const gate_step& s) const {
    width(s.up, "up", of(s.gate).width);
    width(s.out, "out", of(s.gate).width);
    same_rows(s.gate, s.up, "up");
    same_rows(s.gate, s.out, "out");
  }

  void check(const add_step& s) const {
    width(s.out, "out", of(s.in).width);
    same_rows(s.in, s.out, "out");
    different(s.in, s.out, "in and out");
    if (s.norm) norm(*s.norm, of(s.in).width, "norm");
  }

  void check(const route_step& s) const {
    const std::int64_t n_used = of(s.selection).width;
    width(s.weights, "weights", n_used);
    require(n_used <= of(s.logits).width, "chooses ", n_used, " of ", of(s.logits).width,
            " experts");
    integers(s.selection, "selection");
    same_rows(s.logits, s.selection, "selection");
    same_rows(s.logits, s.weights, "weights");
    different(s.logits, s.weights, "logits and weights");
  }

  void check(const expert_matmul_step& s) const {
    const std::int64_t n_used = of(s.selection).width;
    integers(s.selection, "selection");
    same_rows(s.in, s.selection, "selection");
    require(!s.outputs.empty(), "has no outputs");
    const std::int64_t slots = s.in_per_slot ? n_used : 1;
    require(of(s.in).width % slots == 0, "in has width ", of(s.in).width, ", which ", slots,
            " slots cannot share");
    const std::uint64_t n_expert = given(s.outputs[0].matrix, "matrix").shape.extent[2];
    for (const linear& l : s.outputs) {
      product(l, of(s.in).width / slots, n_expert);
      width(l.out, "out", product_of(n_used, l.matrix->shape.extent[1]));
      same_rows(s.in, l.out, "out");
    }
    apart(s.outputs, s.in);
  }

  void check(const combine_step& s) const {
    width(s.in, "in", product_of(of(s.weights).width, of(s.out).width));
    same_rows(s.in, s.weights, "weights");
    same_rows(s.in, s.out, "out");
    different(s.in, s.out, "in and out");
    different(s.weights, s.out, "weights and out");
  }

  void check(const select_step& s) const {
    width(s.out, "out", of(s.in).width);
    per_token(s.in, "in");
    require(of(s.out).rows == value_rows::per_output, "out must have a row per output");
  }

  void check(const softcap_step& s) const {
    require(std::isfinite(s.cap) && s.cap > 0, "cap is ", s.cap, "; it must be positive");
  }

  // Called before check(): all values exist, so of() is safe.
  void exists(value v) const {
    require(v.id >= 0 && static_cast<std::size_t>(v.id) < r_.values.size(), "names value ", v.id,
            "; there are ", r_.values.size());
  }

  void written_before(value v, const std::vector<bool>& written) const {
    require(written[static_cast<std::size_t>(v.id)], "reads value ", v.id,
            ", which no step before it has written");
  }

  void element_types(value v, bool may_be_integers) const {
    require(may_be_integers || of(v).element == value_element::f32, "value ", v.id,
            " holds integers; the step needs floats");
  }

 private:
  const value_info& of(value v) const { return r_.info(v); }

  template <typename... Parts>
  void require(bool holds, const Parts&... fault) const {
    if (holds) return;
    throw error(errc::invalid_argument,
                concat("step ", index_, " (", step_name(r_.steps[index_]), "): ", fault...));
  }

  template <typename A, typename B>
  static std::uint64_t product_of(A a, B b) {
    return static_cast<std::uint64_t>(a) * static_cast<std::uint64_t>(b);
  }

  template <typename Width>
  void width(value v, const char* role, Width expected) const {
    require(static_cast<std::uint64_t>(of(v).width) == static_cast<std::uint64_t>(expected), role,
            " (value ", v.id, ") has width ", of(v).width, "; it must have ", expected);
  }

  void same_rows(value a, value b, const char* role) const {
    require(of(a).rows == of(b).rows, role, " (value ", b.id, ") has a row per ",
            of(b).rows == value_rows::per_token ? "token" : "output", ", unlike value ", a.id);
  }

  void per_token(value v, const char* role) const {
    require(of(v).rows == value_rows::per_token, role, " must have a row per token");
  }

  void integers(value v, const char* role) const {
    require(of(v).element == value_element::i32, role, " (value ", v.id, ") must hold integers");
  }

  void different(value a, value b, const char* roles) const {
    require(a.id != b.id, roles, " are the same value ", a.id);
  }

  void apart(const std::vector<linear>& outputs, value in) const {
    for (std::size_t i = 0; i < outputs.size(); ++i) {
      different(in, outputs[i].out, "in and out");
      for (std::size_t j = 0; j < i; ++j) different(outputs[i].out, outputs[j].out, "two outputs");
    }
  }

  const weight& given(const weight* w, const char* role) const {
    require(w != nullptr && (w->data != nullptr || w->experts != nullptr), role, " is missing");
    require(has_format(w->format), role, " has format ", format_name(w->format),
            ", which nibble does not compute with");
    return *w;
  }

  void f32_weight(const weight& w, const char* role, std::uint64_t elements) const {
    given(&w, role);
    require(w.format == id_of<formats::f32>, role, " is ", format_name(w.format),
            "; it must be f32");
    require(w.shape.elements() == elements, role, " has shape ", to_text(w.shape),
            "; it must have ", elements, " elements");
  }

  template <typename Width>
  void norm(const rms_norm& n, Width columns, const char* role) const {
    require(n.gain != nullptr, role, " has no gain");
    f32_weight(*n.gain, role, static_cast<std::uint64_t>(columns));
    require(n.epsilon >= 0, role, " has epsilon ", n.epsilon);
  }

  void product(const linear& l, std::int64_t columns, std::uint64_t n_expert) const {
    const shape& s = given(l.matrix, "matrix").shape;
    require(s.columns() == static_cast<std::uint64_t>(columns) && s.extent[2] == n_expert &&
                s.extent[3] == 1,
            "matrix has shape ", to_text(s), "; it must have ", columns, " columns and ", n_expert,
            n_expert == 1 ? " matrix" : " matrices");
    if (l.bias) f32_weight(*l.bias, "bias", s.extent[1] * n_expert);
    if (l.scale) f32_weight(*l.scale, "scale", 1);
  }

  const recording& r_;
  std::size_t index_;  // of the step
};

template <typename Kind>
constexpr bool uses_integers =
    std::is_same_v<Kind, route_step> || std::is_same_v<Kind, expert_matmul_step>;

void check_values(const recording& r) {
  for (std::size_t i = 0; i < r.values.size(); ++i) {
    if (r.values[i].width > 0) continue;
    throw error(errc::invalid_argument,
                concat("value ", i, " of the recording has width ", r.values[i].width));
  }
  for (const value v : {r.input, r.output}) {
    if (!v || static_cast<std::size_t>(v.id) < r.values.size()) continue;
    throw error(errc::invalid_argument, concat("the recording's border names value ", v.id,
                                               "; there are ", r.values.size()));
  }
}

}  // namespace

const char* step_name(const step& s) {
  return std::visit([](const auto& kind) { return name_of(kind); }, s);
}

void check_recording(const recording& r) {
  check_values(r);
  std::vector<bool> written(r.values.size(), false);
  const auto mark = [&](value v) { written[static_cast<std::size_t>(v.id)] = true; };
  if (r.input) mark(r.input);
  for (std::size_t i = 0; i < r.steps.size(); ++i) {
    const step_checker checker(r, i);
    const bool integers = std::visit(
        [](const auto& s) { return uses_integers<std::decay_t<decltype(s)>>; }, r.steps[i]);
    for_each_value(r.steps[i], [&](value v, value_access) { checker.exists(v); });
    for_each_value(r.steps[i], [&](value v, value_access access) {
      checker.element_types(v, integers);
      if (access != value_access::write) checker.written_before(v, written);
    });
    std::visit([&](const auto& s) { checker.check(s); }, r.steps[i]);
    for_each_value(r.steps[i], [&](value v, value_access) { mark(v); });
  }
  if (r.output && !written[static_cast<std::size_t>(r.output.id)]) {
    throw error(errc::invalid_argument,
                concat("no step writes the recording's output, value ", r.output.id));
  }
}

}  // namespace nibble::inline NIBBLE_ABI

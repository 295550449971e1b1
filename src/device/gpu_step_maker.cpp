#include "device/gpu_step_maker.hpp"

#include <algorithm>
#include <utility>
#include <variant>

#include "device/cpu_program_memory.hpp"
#include "device/cpu_weights.hpp"
#include "device/gpu_fusion.hpp"
#include "device/gpu_weights.hpp"

namespace nibble::inline NIBBLE_ABI {
namespace {

const float* floats_or_null(const weight* w) {
  return w ? reinterpret_cast<const float*>(w->data) : nullptr;
}

// From one row of floats to the next; rows are filled up (matrix_layout.hpp).
std::int64_t floats_in_row(const weight& w) {
  const auto row =
      kernels::layout_of<formats::f32>(static_cast<std::int64_t>(w.shape.columns()), 1);
  return static_cast<std::int64_t>(row.row_bytes[kernels::low_plane] / sizeof(float));
}

gpu::input_rows plain(const float* x, std::int64_t columns) {
  return {.x = x, .columns = columns, .kind = gpu::input_kind::plain};
}

void add_norm(gpu::input_rows& in, const rms_norm& norm) {
  in.kind = gpu::input_kind::norm;
  in.gain = floats_or_null(norm.gain);
  in.epsilon = norm.epsilon;
}

// Products in lots of what one launch takes.
template <typename Function>
void in_lots(const std::vector<gpu::product>& products, Function f) {
  for (std::size_t i = 0; i < products.size(); i += gpu::max_products) {
    const std::size_t n = std::min(products.size() - i, std::size_t{gpu::max_products});
    f(products.data() + i, static_cast<std::int32_t>(n));
  }
}

template <typename Args>
void set_products(Args& args, const gpu::product* products, std::int32_t n) {
  args.n_products = n;
  std::copy_n(products, n, args.products);
}

}  // namespace

std::vector<gpu_launch> gpu_step_maker::make_all() {
  taken_gates_ = find_taken_gates(recording_);
  make_rope_tables();
  for (index_ = 0; index_ < recording_.steps.size(); ++index_) {
    std::visit([this](const auto& kind) { make(kind); }, recording_.steps[index_]);
  }
  return std::move(launches_);
}

gpu_step_maker::buffer gpu_step_maker::at(value v) const {
  const value_info& info = recording_.info(v);
  std::byte* const data = memory_.base + memory_.values.offset[static_cast<std::size_t>(v.id)];
  return {reinterpret_cast<float*>(data), info.width, info.rows};
}

std::int32_t* gpu_step_maker::integers(value v) const {
  return reinterpret_cast<std::int32_t*>(at(v).data);
}

gpu::product gpu_step_maker::product_of(const linear& l) const {
  return {.matrix = packed_matrix_of(*l.matrix),
          .bias = floats_or_null(l.bias),
          .scale = floats_or_null(l.scale),
          .out = l.out ? at(l.out).data : nullptr,
          .bias_stride = l.bias ? floats_in_row(*l.bias) : 0};
}

// Angles depend on the batch alone: one table for all layers that rotate alike.
void gpu_step_maker::make_rope_tables() {
  for (const gpu_rope_table& table : memory_.ropes) {
    add("rope", [table](const gpu_run& run) {
      run.kernels.rope(run.target, {.step = run.step,
                                    .tokens = run.tokens,
                                    .frequencies = table.frequencies,
                                    .n = static_cast<std::int32_t>(table.spec->frequencies.size()),
                                    .magnitude = table.spec->magnitude,
                                    .pages = run.pages,
                                    .group = 0,  // what was dropped is the same for all
                                    .cosine = table.cosine,
                                    .sine = table.sine,
                                    .back_cosine = table.back_cosine,
                                    .back_sine = table.back_sine});
    });
  }
}

void gpu_step_maker::make(const embed_step& s) {
  add("embed", [table = packed_matrix_of(*s.table), scale = s.scale,
                out = at(s.out).data](const gpu_run& run) {
    run.kernels.embed(
        run.target,
        {.table = table, .tokens = run.step.ids, .rows = run.tokens, .scale = scale, .out = out});
  });
}

void gpu_step_maker::make(const norm_step& s) {
  const buffer in = at(s.in), out = at(s.out);
  gpu::input_rows rows = plain(in.data, in.width);
  add_norm(rows, s.norm);
  add("norm", [rows, kind = in.rows, out = out.data](const gpu_run& run) {
    run.kernels.transform(run.target, {.in = rows, .rows = run.rows(kind), .out = out});
  });
}

void gpu_step_maker::make(const gate_step& s) {
  if (taken_gates_[index_]) {
    waiting_ = &s;
    return;
  }
  const buffer gate = at(s.gate);
  gpu::input_rows rows = plain(gate.data, gate.width);
  rows.kind = gpu::input_kind::gate;
  rows.up = at(s.up).data;
  rows.gate_kind = static_cast<std::int32_t>(s.kind);
  add("gate", [rows, kind = gate.rows, out = at(s.out).data](const gpu_run& run) {
    run.kernels.transform(run.target, {.in = rows, .rows = run.rows(kind), .out = out});
  });
}

gpu::input_rows gpu_step_maker::input_of(value in, const std::optional<rms_norm>& norm,
                                         std::int64_t columns) {
  gpu::input_rows rows = plain(at(in).data, columns);
  if (norm) add_norm(rows, *norm);
  if (const gate_step* const gate = std::exchange(waiting_, nullptr)) {
    rows.x = at(gate->gate).data;
    rows.kind = gpu::input_kind::gate;
    rows.up = at(gate->up).data;
    rows.gate_kind = static_cast<std::int32_t>(gate->kind);
  }
  return rows;
}

void gpu_step_maker::make(const matmul_step& s) {
  const buffer in = at(s.in);
  const gpu::input_rows rows = input_of(s.in, s.norm, in.width);
  std::vector<gpu::product> q8, f32;
  for (const linear& l : s.outputs) {
    (takes_q8(l.matrix->format, activations_) ? q8 : f32).push_back(product_of(l));
  }
  if (!q8.empty()) make_q8_product(rows, in.rows, q8, s.accumulate);
  if (!f32.empty()) make_f32_product(rows, in.rows, f32, s.accumulate);
}

void gpu_step_maker::make_q8_product(const gpu::input_rows& in, value_rows kind,
                                     const std::vector<gpu::product>& products, bool accumulate) {
  add("matmul",
      [in, kind, products, accumulate, q8 = memory_.q8, &facts = facts_](const gpu_run& run) {
        const std::int64_t tokens = run.rows(kind);
        if (tokens == 0) return;
        const bool few = tokens <= gpu::max_matvec_tokens;
        const bool fused =
            few && run.kernels.matvec_fits(facts, static_cast<std::int32_t>(tokens), in.columns);
        if (!fused) run.kernels.quantise(run.target, {.in = in, .rows = tokens, .out = q8});
        in_lots(products, [&](const gpu::product* some, std::int32_t n) {
          if (few) {
            gpu::matvec_args args{.in = fused ? in : gpu::input_rows{},
                                  .ready = q8,
                                  .tokens = static_cast<std::int32_t>(tokens),
                                  .columns = in.columns,
                                  .accumulate = accumulate};
            set_products(args, some, n);
            run.kernels.matvec(run.target, args);
          } else {
            gpu::matmul_args args{
                .in = q8, .tokens = tokens, .columns = in.columns, .accumulate = accumulate};
            set_products(args, some, n);
            run.kernels.matmul(run.target, args);
          }
        });
      });
}

void gpu_step_maker::make_f32_product(const gpu::input_rows& in, value_rows kind,
                                      const std::vector<gpu::product>& products, bool accumulate) {
  add("matmul", [in, kind, products, accumulate, normed = memory_.normed](const gpu_run& run) {
    const std::int64_t tokens = run.rows(kind);
    if (tokens == 0) return;
    const float* x = in.x;
    if (in.kind != gpu::input_kind::plain) {
      run.kernels.transform(run.target, {.in = in, .rows = tokens, .out = normed});
      x = normed;
    }
    in_lots(products, [&](const gpu::product* some, std::int32_t n) {
      gpu::matmul_f32_args args{
          .in = x, .tokens = tokens, .columns = in.columns, .accumulate = accumulate};
      set_products(args, some, n);
      run.kernels.matmul_f32(run.target, args);
    });
  });
}

void gpu_step_maker::make(const expert_matmul_step& s) {
  const buffer in = at(s.in);
  const auto n_used = static_cast<std::int32_t>(at(s.selection).width);
  const std::int64_t columns = s.in_per_slot ? in.width / n_used : in.width;
  const gpu::input_rows rows = input_of(s.in, {}, columns);
  const bool is_gate = rows.kind == gpu::input_kind::gate;
  gpu::expert_args base{.per_slot = s.in_per_slot,
                        .n_used = n_used,
                        .n_expert = static_cast<std::int32_t>(s.outputs[0].matrix->shape.extent[2]),
                        .columns = columns,
                        .selection = integers(s.selection)};
  for (const bool q8 : {true, false}) {
    std::vector<gpu::product> products;
    for (const linear& l : s.outputs) {
      if (takes_q8(l.matrix->format, activations_) == q8) products.push_back(product_of(l));
    }
    if (products.empty()) continue;
    add("expert_matmul", [rows, base, products, q8, is_gate, n_used, &m = memory_,
                          kind = in.rows](const gpu_run& run) {
      gpu::expert_args args = base;
      args.tokens = run.rows(kind);
      if (args.tokens == 0) return;
      const std::int64_t in_rows = args.tokens * (base.per_slot ? n_used : 1);
      const std::int64_t pairs = args.tokens * n_used;
      if (q8) {
        args.in = m.q8;
        run.kernels.quantise(run.target, {.in = rows, .rows = in_rows, .out = m.q8});
      } else {
        args.in_f32 = rows.x;
        if (is_gate) {
          args.in_f32 = m.normed;
          run.kernels.transform(run.target, {.in = rows, .rows = in_rows, .out = m.normed});
        }
      }
      if (args.tokens > gpu::max_matvec_tokens) {
        run.kernels.group_pairs(run.target, {.selection = base.selection,
                                             .pairs = pairs,
                                             .n_expert = base.n_expert,
                                             .pair_order = m.pair_order,
                                             .pair_start = m.pair_start});
        args.pair_order = m.pair_order;
        args.pair_start = m.pair_start;
      }
      in_lots(products, [&](const gpu::product* some, std::int32_t n) {
        set_products(args, some, n);
        run.kernels.expert_matmul(run.target, args);
      });
    });
  }
}

gpu::attend_shape gpu_step_maker::shape_of(const attention_spec& a) const {
  gpu::attend_shape shape{.n_head = a.n_head,
                          .n_head_kv = a.n_head_kv,
                          .key_length = a.key_length,
                          .value_length = a.value_length,
                          .scale = a.scale,
                          .softcap = a.softcap,
                          .window = a.window,
                          .sinks = floats_or_null(a.sinks),
                          .rope_style = static_cast<std::int32_t>(a.rope.style),
                          .temperature_scale = a.temperature_scale,
                          .temperature_period = a.temperature_period};
  if (a.rope.style != rope_style::none) {
    for (const gpu_rope_table& table : memory_.ropes) {
      if (!same_table(*table.spec, a.rope)) continue;
      shape.rope_pairs = static_cast<std::int32_t>(a.rope.frequencies.size());
      shape.cosine = table.cosine;
      shape.sine = table.sine;
      shape.back_cosine = table.back_cosine;
      shape.back_sine = table.back_sine;
    }
  }
  if (a.q_norm) {
    shape.q_gain = floats_or_null(a.q_norm->gain);
    shape.q_epsilon = a.q_norm->epsilon;
  }
  if (a.k_norm) {
    shape.k_gain = floats_or_null(a.k_norm->gain);
    shape.k_epsilon = a.k_norm->epsilon;
  }
  return shape;
}

void gpu_step_maker::make(const attend_step& s) {
  const gpu::attend_shape shape = shape_of(s.spec);
  const buffer q = at(s.q), k = at(s.k), v = at(s.v), out = at(s.out);
  add("attend", [=, layer = s.layer, &m = memory_, &facts = facts_](const gpu_run& run) {
    const gpu::cache_layer cache = run.layer(layer);
    run.kernels.attend_prepare(run.target, {.shape = shape,
                                            .step = run.step,
                                            .pages = run.pages,
                                            .cache = cache,
                                            .tokens = run.tokens,
                                            .q = q.data,
                                            .k = k.data,
                                            .v = v.data,
                                            .q_turned = m.q_turned});
    run.kernels.attend(run.target, {.shape = shape,
                                    .step = run.step,
                                    .pages = run.pages,
                                    .cache = cache,
                                    .tokens = run.tokens,
                                    .q = q.data,
                                    .q_turned = m.q_turned,
                                    .out = out.data,
                                    .run_tokens = static_cast<std::int32_t>(run.run_tokens),
                                    .splits = attend_splits(facts, run.tokens, shape.n_head_kv),
                                    .parts = m.attend_parts,
                                    .states = m.attend_states,
                                    .counters = m.attend_counters});
  });
}

void gpu_step_maker::make(const add_step& s) {
  const buffer in = at(s.in);
  gpu::input_rows rows = plain(in.data, in.width);
  if (s.norm) add_norm(rows, *s.norm);
  add("add", [rows, kind = in.rows, out = at(s.out).data](const gpu_run& run) {
    run.kernels.add(run.target, {.in = rows, .rows = run.rows(kind), .out = out});
  });
}

void gpu_step_maker::make(const route_step& s) {
  const buffer logits = at(s.logits), weights = at(s.weights);
  add("route", [=, selection = integers(s.selection), kind = static_cast<std::int32_t>(s.kind),
                normalise = s.normalise, scale = s.scale](const gpu_run& run) {
    run.kernels.route(run.target, {.logits = logits.data,
                                   .rows = run.rows(logits.rows),
                                   .n_expert = static_cast<std::int32_t>(logits.width),
                                   .n_used = static_cast<std::int32_t>(weights.width),
                                   .kind = kind,
                                   .normalise = normalise,
                                   .scale = scale,
                                   .selection = selection,
                                   .weights = weights.data});
  });
}

void gpu_step_maker::make(const combine_step& s) {
  const buffer out = at(s.out), weights = at(s.weights);
  add("combine", [=, in = at(s.in).data](const gpu_run& run) {
    run.kernels.combine(run.target, {.in = in,
                                     .weights = weights.data,
                                     .rows = run.rows(out.rows),
                                     .width = out.width,
                                     .n_used = static_cast<std::int32_t>(weights.width),
                                     .out = out.data});
  });
}

void gpu_step_maker::make(const select_step& s) {
  const buffer in = at(s.in);
  add("select", [in, out = at(s.out).data](const gpu_run& run) {
    if (run.outputs == 0) return;
    run.kernels.select(run.target, {.in = in.data,
                                    .which = run.output_tokens,
                                    .rows = run.outputs,
                                    .width = in.width,
                                    .out = out});
  });
}

void gpu_step_maker::make(const softcap_step& s) {
  const buffer x = at(s.x);
  add("softcap", [x, cap = s.cap](const gpu_run& run) {
    const std::int64_t rows = run.rows(x.rows);
    if (rows == 0) return;
    run.kernels.softcap(run.target, {.x = x.data, .n = rows * x.width, .cap = cap});
  });
}

}  // namespace nibble::inline NIBBLE_ABI

// Steps that treat each element or each row by itself: embed, norm, gate, add, combine, select,
// softcap.
#include <algorithm>
#include <cmath>
#include <nibble/formats/list.hpp>
#include <optional>

#include "device/cpu_step_maker.hpp"
#include "device/cpu_weights.hpp"

namespace nibble::inline NIBBLE_ABI {
namespace {

// Steps that read and write the same columns of each row.
class by_columns : public cpu_step {
 public:
  sharing enters(bool) const override { return sharing::columns; }
  sharing leaves(bool) const override { return sharing::columns; }
};

class cpu_embed final : public cpu_step {
 public:
  cpu_embed(const weight& table, float scale, cpu_buffer<float> out,
            const cpu::kernel_table& kernels, activation_type activations,
            const cpu_program_memory& memory)
      : rows_(table.data),
        row_bytes_(row_bytes(table.format, table.shape.columns())),
        scale_(scale),
        out_(out),
        memory_(memory) {
    const auto index = static_cast<std::size_t>(*format_index(table.format));
    decode_ = kernels.decode[index];
    unpack_ = takes_q8(table.format, activations) ? kernels.unpack_row[index] : nullptr;
  }

  void run(const cpu_run& state, int thread) const override {
    const index_range tokens = share(state.tokens, thread, state.threads(), 1);
    for (std::int64_t t = tokens.begin; t < tokens.end; ++t) {
      float* const to = out_.row(t);
      decode_(row(state.ids[t], memory_.threads[static_cast<std::size_t>(thread)].row), out_.width,
              to);
      if (scale_ == 1) continue;
      for (std::int64_t i = 0; i < out_.width; ++i) to[i] *= scale_;
    }
  }

 private:
  // The blocks of a token's row; from a packed table they are put together in `scratch`, which has
  // room for as many floats.
  const void* row(token id, float* scratch) const {
    if (!unpack_) return rows_ + static_cast<std::size_t>(id) * row_bytes_;
    unpack_(rows_, id, out_.width, scratch);
    return scratch;
  }

  const std::byte* rows_;
  std::size_t row_bytes_;
  float scale_;
  cpu_buffer<float> out_;
  const cpu_program_memory& memory_;
  void (*decode_)(const void* row, std::int64_t n, float* out);
  void (*unpack_)(const void* packed, std::int64_t row, std::int64_t columns, void* to);
};

// A norm needs whole rows. A single row is normalised by every thread for itself, and each writes
// its own columns.
class cpu_row_norm : public cpu_step {
 public:
  cpu_row_norm(const cpu::kernel_table& kernels, cpu_norm norm, cpu_buffer<float> in,
               cpu_buffer<float> out, const cpu_program_memory& memory)
      : kernels_(kernels), out_(out), norm_(norm), in_(in), memory_(memory) {}

  sharing leaves(bool single) const override { return single ? sharing::columns : sharing::other; }

  void run(const cpu_run& state, int thread) const override {
    const std::int64_t rows = state.rows(in_.rows);
    const index_range mine =
        state.single() ? index_range{0, rows} : share(rows, thread, state.threads(), 1);
    const index_range columns =
        state.single() ? share(in_.width, thread, state.threads()) : index_range{0, in_.width};
    float* const row = memory_.threads[static_cast<std::size_t>(thread)].row;
    for (std::int64_t i = mine.begin; i < mine.end; ++i) {
      kernels_.rms_norm(in_.row(i), norm_.gain, norm_.epsilon, in_.width, row);
      // a reader of the whole row may not see it half written
      if (state.single() && in_.data == out_.data) state.team->barrier();
      write(row + columns.begin, columns.size(), out_.row(i) + columns.begin);
    }
  }

 protected:
  virtual void write(const float* normed, std::int64_t n, float* to) const = 0;

  const cpu::kernel_table& kernels_;
  cpu_buffer<float> out_;

 private:
  cpu_norm norm_;
  cpu_buffer<float> in_;
  const cpu_program_memory& memory_;
};

class cpu_norm_step final : public cpu_row_norm {
 public:
  using cpu_row_norm::cpu_row_norm;

 private:
  void write(const float* normed, std::int64_t n, float* to) const override {
    std::copy_n(normed, n, to);
  }
};

class cpu_add_norm final : public cpu_row_norm {
 public:
  using cpu_row_norm::cpu_row_norm;

 private:
  void write(const float* normed, std::int64_t n, float* to) const override {
    kernels_.add_scaled(normed, 1, n, to);
  }
};

class cpu_add final : public by_columns {
 public:
  cpu_add(const cpu::kernel_table& kernels, cpu_buffer<float> in, cpu_buffer<float> out)
      : kernels_(kernels), in_(in), out_(out) {}

  void run(const cpu_run& state, int thread) const override {
    const index_range columns = share(in_.width, thread, state.threads());
    for (std::int64_t i = 0; i < state.rows(in_.rows); ++i) {
      kernels_.add_scaled(in_.row(i) + columns.begin, 1, columns.size(),
                          out_.row(i) + columns.begin);
    }
  }

 private:
  const cpu::kernel_table& kernels_;
  cpu_buffer<float> in_, out_;
};

class cpu_gate final : public by_columns {
 public:
  using gate_fn = void (*)(const float* gate, const float* up, std::int64_t n, float* out);

  cpu_gate(gate_fn activate, cpu_buffer<float> gate, cpu_buffer<float> up, cpu_buffer<float> out)
      : activate_(activate), gate_(gate), up_(up), out_(out) {}

  void run(const cpu_run& state, int thread) const override {
    const index_range columns = share(gate_.width, thread, state.threads());
    const std::int64_t at = columns.begin;
    for (std::int64_t i = 0; i < state.rows(gate_.rows); ++i) {
      activate_(gate_.row(i) + at, up_.row(i) + at, columns.size(), out_.row(i) + at);
    }
  }

 private:
  gate_fn activate_;
  cpu_buffer<float> gate_, up_, out_;
};

class cpu_combine final : public cpu_step {
 public:
  cpu_combine(const cpu::kernel_table& kernels, cpu_buffer<float> in, cpu_buffer<float> weights,
              cpu_buffer<float> out)
      : kernels_(kernels), in_(in), weights_(weights), out_(out) {}

  sharing leaves(bool) const override { return sharing::columns; }

  void run(const cpu_run& state, int thread) const override {
    const index_range columns = share(out_.width, thread, state.threads());
    for (std::int64_t t = 0; t < state.rows(out_.rows); ++t) {
      for (std::int64_t slot = 0; slot < weights_.width; ++slot) {
        kernels_.add_scaled(in_.row(t) + slot * out_.width + columns.begin, weights_.row(t)[slot],
                            columns.size(), out_.row(t) + columns.begin);
      }
    }
  }

 private:
  const cpu::kernel_table& kernels_;
  cpu_buffer<float> in_, weights_, out_;
};

class cpu_select final : public by_columns {
 public:
  cpu_select(cpu_buffer<float> in, cpu_buffer<float> out) : in_(in), out_(out) {}

  void run(const cpu_run& state, int thread) const override {
    const index_range columns = share(in_.width, thread, state.threads());
    for (std::int64_t i = 0; i < state.outputs; ++i) {
      std::copy_n(in_.row(state.output_tokens[i]) + columns.begin, columns.size(),
                  out_.row(i) + columns.begin);
    }
  }

 private:
  cpu_buffer<float> in_, out_;
};

class cpu_softcap final : public by_columns {
 public:
  cpu_softcap(cpu_buffer<float> x, float cap) : x_(x), cap_(cap) {}

  void run(const cpu_run& state, int thread) const override {
    const index_range columns = share(x_.width, thread, state.threads());
    for (std::int64_t i = 0; i < state.rows(x_.rows); ++i) {
      float* const row = x_.row(i);
      for (std::int64_t c = columns.begin; c < columns.end; ++c) {
        row[c] = cap_ * std::tanh(row[c] / cap_);
      }
    }
  }

 private:
  cpu_buffer<float> x_;
  float cap_;
};

}  // namespace

cpu_step_maker::made cpu_step_maker::make(const embed_step& s) {
  return std::make_unique<cpu_embed>(*s.table, s.scale, buffer(s.out), kernels_, activations_,
                                     memory_);
}

cpu_step_maker::made cpu_step_maker::make(const norm_step& s) {
  return std::make_unique<cpu_norm_step>(kernels_, norm(s.norm), buffer(s.in), buffer(s.out),
                                         memory_);
}

cpu_step_maker::made cpu_step_maker::make(const gate_step& s) {
  return std::make_unique<cpu_gate>(kernels_.gate[static_cast<int>(s.kind)], buffer(s.gate),
                                    buffer(s.up), buffer(s.out));
}

cpu_step_maker::made cpu_step_maker::make(const add_step& s) {
  if (!s.norm) return std::make_unique<cpu_add>(kernels_, buffer(s.in), buffer(s.out));
  return std::make_unique<cpu_add_norm>(kernels_, norm(*s.norm), buffer(s.in), buffer(s.out),
                                        memory_);
}

cpu_step_maker::made cpu_step_maker::make(const combine_step& s) {
  return std::make_unique<cpu_combine>(kernels_, buffer(s.in), buffer(s.weights), buffer(s.out));
}

cpu_step_maker::made cpu_step_maker::make(const select_step& s) {
  return std::make_unique<cpu_select>(buffer(s.in), buffer(s.out));
}

cpu_step_maker::made cpu_step_maker::make(const softcap_step& s) {
  return std::make_unique<cpu_softcap>(buffer(s.x), s.cap);
}

}  // namespace nibble::inline NIBBLE_ABI

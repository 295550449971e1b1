// What a model and its sessions hold.
#pragma once

#include <deque>
#include <mutex>
#include <nibble/engine/model.hpp>
#include <nibble/engine/session.hpp>
#include <optional>
#include <vector>

namespace nibble::inline NIBBLE_ABI {

struct model::state {
  nibble::hparams hp;
  placement plan;
  load_report loading;
  std::optional<nibble::tokenizer> tokenizer;

  std::unique_ptr<backend> device;
  std::deque<weight> weights;  // a deque: the table and the program point at its elements
  weight_table table;
  kv_layout kv;

  std::mutex running;  // the program has one workspace
  std::unique_ptr<nibble::program> program;

  void load(const gguf::file& file, const model_options& options);
  // Throws error (unsupported) if the file has no vocabulary.
  const nibble::tokenizer& need_tokenizer() const;
  // Throws error (invalid_argument) for options that do not fit, also to this vocabulary.
  sampler make_sampler(const sampling_options& options) const;
};

struct session::state {
  std::shared_ptr<model::state> loaded;
  std::unique_ptr<kv_cache> cache;
  nibble::sampler sampler;
  std::vector<token> tokens;     // in the cache
  std::optional<token> pending;  // given out by a generation, not in the cache yet
  std::vector<token> next;       // being appended; kept, so that a token costs no allocation
  std::vector<float> logits;     // of the last token, [n_vocab]
  session_timings timings;

  std::int32_t room() const {
    return loaded->plan.context - static_cast<std::int32_t>(tokens.size());
  }
  // Computes one batch and copies the wanted logits to `out`, [outputs, n_vocab].
  void run(std::span<const token> tokens, std::span<const std::int32_t> outputs,
           std::vector<float>& out);
  // What session's functions of these names do.
  void append(std::span<const token> tokens, std::stop_token cancel);
  void append(std::span<const token> tokens, const logits_visitor& visit);
  token sample(nibble::sampler& by);
  void truncate(std::int32_t count);
  // Puts the pending token, if there is one, before these. Valid until its next call.
  std::span<const token> with_pending(std::span<const token> tokens);
  // Throws error (invalid_argument) if these tokens cannot follow `held` ones.
  void check(std::span<const token> tokens, std::size_t held) const;
};

}  // namespace nibble::inline NIBBLE_ABI

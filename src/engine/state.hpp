// What a model and its sessions hold.
#pragma once

#include <deque>
#include <mutex>
#include <nibble/engine/model.hpp>
#include <nibble/engine/session.hpp>
#include <nibble/kv/page_pool.hpp>
#include <optional>
#include <string>
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
  std::string fingerprint;  // of the model: numbers, formats, and the beginnings of its tensors

  std::unique_ptr<kv_cache> cache;
  std::unique_ptr<page_pool> pages;

  std::mutex running;  // the program has one workspace
  std::unique_ptr<nibble::program> program;

  // On `device` if there is one already.
  void load(const gguf::file& file, const model_options& options);
  // Chooses and opens the device, and plans for it.
  void place(const model_definition& definition, const model_options& options);
  // Throws error (unsupported) if the file has no vocabulary.
  const nibble::tokenizer& need_tokenizer() const;
  // Throws error (invalid_argument) for options that do not fit, also to this vocabulary.
  sampler make_sampler(const sampling_options& options) const;
};

// What a session holds. Tokens whose keys and values are in the cache come first; those behind them
// wait to be computed.
struct session::state {
  std::shared_ptr<model::state> loaded;
  session_options options;
  nibble::sampler sampler;
  kv_sequence sequence;
  std::vector<token> tokens;
  std::size_t cached = 0;        // of the tokens
  std::optional<token> pending;  // given out by a generation, not among the tokens yet
  std::vector<float> logits;     // of the last token, [n_vocab]; empty: not known
  session_timings timings;

  state(std::shared_ptr<model::state> of, nibble::sampler by, const session_options& options);
  state(const state& other);  // a fork
  ~state();

  // What session's functions of these names do.
  void append(std::span<const token> more, std::stop_token cancel);
  void append(std::span<const token> more, const logits_visitor& visit);
  token sample(nibble::sampler& by);
  void truncate(std::int32_t count);
  void shift(std::int32_t keep, std::int32_t drop);
  void save(const std::filesystem::path& path) const;
  // What the session holds is lost, also if this throws.
  void load(const std::filesystem::path& path);

  // The parts of append(). Queues the pending token, if there is one, and these; makes room for
  // them if the session's policy allows, and looks for pages that hold the first ones already, at
  // most `reuse` tokens. Throws error (invalid_argument); nothing has changed then.
  void queue(std::span<const token> more, std::size_t reuse = ~std::size_t{0});
  // Gives the sequence pages for the next `count` tokens that wait. Throws error (out_of_memory).
  batch_chunk prepare(std::size_t count);
  // They have been computed.
  void complete(std::size_t count);
  // Takes back tokens that were queued after so many, with what was pending then, as far as they
  // have not been computed.
  void take_back(std::size_t before, std::optional<token> pending_before);
  std::size_t waiting() const noexcept { return tokens.size() - cached; }

  // Tokens that fit in without dropping any.
  std::int64_t room() const;
  // Throws error (invalid_argument) if they cannot follow the tokens that are held, or with `anew`
  // take their place.
  void check(std::span<const token> more, bool anew) const;
  // Whether so many fit into this room, after dropping others if the policy allows.
  bool can_take(std::size_t more, std::int64_t room) const;
  void make_room(std::size_t more);

 private:
  // Computes one batch of tokens that wait; outputs are indices in it. Gives their logits,
  // [outputs, n_vocab], valid while `running` is locked.
  template <typename Visit>
  void compute(std::size_t count, std::span<const std::int32_t> outputs, Visit visit);
  // Everything is to be computed again.
  void forget_pages();
};

}  // namespace nibble::inline NIBBLE_ABI

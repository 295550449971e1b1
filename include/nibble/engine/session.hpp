// A conversation with a model: what it has read (the KV cache) and its randomness.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <nibble/base/config.hpp>
#include <nibble/engine/generation.hpp>
#include <nibble/engine/model.hpp>
#include <nibble/engine/sampler.hpp>
#include <nibble/text/chat_template.hpp>
#include <span>
#include <string_view>
#include <vector>

namespace nibble::inline NIBBLE_ABI {

// What happens when the context is full.
enum class context_policy {
  stop,   // a generation ends (finish_reason::context_full), append() throws
  shift,  // the oldest tokens are dropped, many at a time
  slide   // the same, few at a time
};
// Pages are dropped as a whole, so a session that keeps some tokens may hold up to 64 fewer than
// the context. Where that would be half of it or more, tokens are dropped one by one, and what
// stays is computed again.

struct session_options {
  context_policy when_full = context_policy::stop;
  // Tokens at the beginning that stay when others are dropped: a system prompt, or a few that take
  // the attention of those who need none (Xiao et al. 2023, arXiv:2309.17453).
  std::int32_t keep = 0;
  // How many shift drops; 0: half of those that it may.
  std::int32_t drop = 0;
  // Called while tokens are appended, if they are more than one, with the share that is computed:
  // first with 0, last with 1. By append() and the session's generations, on their thread; not by a
  // scheduler. It must not compute with the model. It may throw, which ends the append as errors
  // do.
  std::function<void(double)> progress = {};
};

// Sessions of one model may be used from different threads at once; one session may not. One that
// was moved from may be assigned to, or end, and nothing else.
class NIBBLE_API session {
 public:
  // Takes pages of the model's KV cache as it grows. `sampling` holds until set_sampling, and for
  // generations without options of their own.
  // Throws error: invalid_argument (sampling, options), out_of_memory.
  explicit session(const model& of, const sampling_options& sampling = {},
                   const session_options& options = {});
  // What save() wrote: tokens, keys and values, and logits, but neither sampling nor its
  // randomness. Throws error: io; bad_file, which says what is wrong; invalid_argument if another
  // model wrote it, or one with another type of cache, or if the context is too short for it.
  static session load(const model& of, const std::filesystem::path& path,
                      const sampling_options& sampling = {}, const session_options& options = {});
  session(session&&) noexcept;
  session& operator=(session&&) noexcept;
  ~session();

  // Continues after what the session holds already; an empty prompt adds nothing to it.
  // The first text of a session gets the tokens that the model wants at its beginning.
  generation generate(std::string_view prompt, generate_options options = {});
  // The same from tokens.
  generation generate(std::vector<token> prompt, generate_options options = {});

  // Answers the last message of a conversation, laid out by the model's own chat template. Pass the
  // whole conversation every time: only what the session does not hold already is computed.
  // Throws error (unsupported) if the model has no chat template, or one of no known family.
  generation reply(std::span<const chat_message> conversation, generate_options options = {});
  // Continues a whole text, in place of what the session holds; the beginning that both share is
  // not computed again. If it is longer than the context, and the session may drop tokens, those in
  // the middle are left out: `keep` at the beginning stay, and half of the rest's room is filled.
  generation regenerate(std::vector<token> text, generate_options options = {});

  // Another session that goes on from the same tokens; until they differ, they share all pages. Its
  // sampling has the same state.
  session fork() const;
  // Throws error: io. There is no half file under this name, whatever happens.
  void save(const std::filesystem::path& path) const;

  // The lower level, token by token. Appends tokens to the context; returns the logits after the
  // last one, [n_vocab], valid until the session's next call. Throws error: invalid_argument (too
  // many tokens, unknown token), device; the session is then as it was before, but for the parts of
  // a long prompt that were done already.
  std::span<const float> append(std::span<const token> tokens, std::stop_token cancel = {});
  // Gives the logits of every token, a batch at a time: visit(index of the first, [n, n_vocab]).
  // The model must have been planned with all_logits.
  using logits_visitor = std::function<void(std::size_t first, std::span<const float> logits)>;
  void append(std::span<const token> tokens, const logits_visitor& visit);
  // Draws the next token from the logits of the last append; does not append it. The tokens that
  // the session holds are the history for penalties and DRY.
  token sample();
  // New options, and their randomness from the beginning, for sample() and for generations that
  // have no sampling options of their own, also those that have begun. Nothing of the old options
  // stays, nor of Mirostat's memory. Throws error (invalid_argument); nothing changes then.
  void set_sampling(const sampling_options& sampling);

  std::span<const token> tokens() const noexcept;  // what the session holds
  std::int32_t context() const noexcept;           // how many it can hold
  // Forgets all but the first `count` tokens.
  void truncate(std::int32_t count);
  // Drops `drop` tokens after the first `keep`. Those behind them move up: their keys and values
  // stay as they were computed, and only distances to the first ones change.
  void shift(std::int32_t keep, std::int32_t drop);

  std::uint64_t seed() const noexcept;
  const session_timings& timings() const noexcept;

 private:
  friend class generation;
  friend class scheduler;
  generation make_generation(std::vector<token> prompt, bool anew, generate_options options);
  struct state;
  explicit session(std::unique_ptr<state> s);
  std::unique_ptr<state> state_;
};

}  // namespace nibble::inline NIBBLE_ABI

// A generation as it goes on: which tokens are wanted next, and what becomes of them.
#pragma once

#include <nibble/engine/generation.hpp>
#include <nibble/text/text_stream.hpp>
#include <optional>
#include <string>
#include <vector>

#include "engine/state.hpp"
#include "engine/stop_filter.hpp"

namespace nibble::inline NIBBLE_ABI {

struct generation::state {
  session::state* of;
  std::vector<token> prompt;
  bool anew;  // the prompt is the whole text, not what comes after the session's
  generate_options options;
  text_stream stream;
  stop_filter filter;
  std::optional<nibble::sampler> own = {};  // if the options are this generation's own
  std::string piece = {};                   // text that can be given out
  std::int32_t generated = 0;
  bool begun = false, over = false;  // over: nothing more will be given out
  finish_reason reason = finish_reason::none;

  nibble::sampler& sampler() { return own ? *own : of->sampler; }

  // For one generation by itself: computes the prompt, and on to the next piece.
  void begin();
  void advance();

  // The tokens of the prompt that are to be appended, after the session has been cut back to what
  // it shares with them; empty: the session's logits are those that are needed.
  std::span<const token> start();
  // Finishes if there is a reason to, but for what the model says.
  void look_for_end();
  // Draws a token from the session's logits: it becomes text, and pending.
  void take_next();
  void finish(finish_reason why);

 private:
  void shorten();
  std::size_t keep_shared();
  // Appends to the session; false if that was cancelled.
  bool append(std::span<const token> tokens);
};

}  // namespace nibble::inline NIBBLE_ABI

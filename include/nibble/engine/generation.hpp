// Text as it is generated: an input range of pieces.
#pragma once

#include <cstddef>
#include <cstdint>
#include <iterator>
#include <memory>
#include <nibble/base/config.hpp>
#include <nibble/engine/sampling_options.hpp>
#include <optional>
#include <stop_token>
#include <string>
#include <string_view>
#include <vector>

namespace nibble::inline NIBBLE_ABI {

struct generate_options {
  std::int32_t max_tokens = 0;  // 0: until the model or the context ends
  // generation ends before the first of these that is complete; it is not given out
  std::vector<std::string> stop = {};
  bool parse_special = true;    // "<|im_end|>" in the prompt means that token
  std::stop_token cancel = {};  // asked between tokens, and between parts of a prompt
  // For this generation alone, in place of all the session's options: none of those is taken over,
  // and a seed that is not given is a random one. The session's own randomness does not move on.
  std::optional<sampling_options> sampling = {};
};

enum class finish_reason {
  none,         // not finished
  end_of_text,  // the model said so
  stop_string,
  max_tokens,
  context_full,
  cancelled,
};

// Work that a session has done, in tokens and seconds.
struct session_timings {
  std::int64_t prompt_tokens = 0, generated_tokens = 0;  // computed
  std::int64_t shared_tokens = 0;  // of prompts, whose keys and values were there already
  double prompt_seconds = 0, generated_seconds = 0;
};

// One use: iterate over it once. It refers to its session, which may be moved but must outlive it.
// Nothing is computed before begin(). Every piece is whole UTF-8 and is valid until the iterator
// moves on. One that throws is over; the session is where the last token that was computed left it,
// and goes on with another generation.
class NIBBLE_API generation {
 public:
  class NIBBLE_API iterator {
   public:
    using iterator_concept = std::input_iterator_tag;
    using value_type = std::string_view;
    using difference_type = std::ptrdiff_t;

    iterator() = default;
    std::string_view operator*() const;
    iterator& operator++();
    void operator++(int) { ++*this; }
    friend bool operator==(const iterator& it, std::default_sentinel_t) { return it.done(); }

   private:
    friend class generation;
    explicit iterator(generation* from) : from_(from) {}
    bool done() const;
    generation* from_ = nullptr;
  };

  generation(generation&&) noexcept;
  generation& operator=(generation&&) noexcept;
  ~generation();

  // Processes the prompt. Throws error: invalid_argument (the prompt is longer than the context),
  // device.
  iterator begin();
  std::default_sentinel_t end() const noexcept { return {}; }

  finish_reason finished() const noexcept;
  // Of the sampler that chooses the tokens: its own, or the session's.
  std::uint64_t seed() const noexcept;
  // The rest of the text at once.
  std::string text();

 private:
  friend class session;
  friend class scheduler;
  struct state;
  explicit generation(std::unique_ptr<state> s);
  std::unique_ptr<state> state_;
};

}  // namespace nibble::inline NIBBLE_ABI

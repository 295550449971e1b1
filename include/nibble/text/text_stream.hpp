// Tokens in, text out, while a model is still generating.
#pragma once

#include <nibble/base/config.hpp>
#include <nibble/text/tokenizer.hpp>
#include <string>

namespace nibble::inline NIBBLE_ABI {

// What comes out is always whole, valid UTF-8: bytes that could still become a character wait for
// the next token, bytes that cannot become U+FFFD. One object for one text; not for several
// threads at once.
class NIBBLE_API text_stream {
 public:
  explicit text_stream(tokenizer tokens, const decode_options& options = {});

  // The text that this token completes, maybe none. Throws as tokenizer::decode.
  std::string push(token id);
  // What waits, as U+FFFD; afterwards the stream is as new.
  std::string flush();

 private:
  std::string take(token id);
  std::string take_whole(bool all);

  tokenizer tokens_;
  decode_options options_;
  std::string pending_;  // at most 3 bytes between calls
  bool at_start_ = true;
};

}  // namespace nibble::inline NIBBLE_ABI

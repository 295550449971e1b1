#include <nibble/base/utf8.hpp>
#include <nibble/text/text_stream.hpp>

#include "base/memory_for.hpp"

namespace nibble::inline NIBBLE_ABI {

text_stream::text_stream(tokenizer tokens, const decode_options& options)
    : tokens_(std::move(tokens)), options_(options) {}

std::string text_stream::push(token id) {
  return with_memory_for("the text of a token", [&] { return take(id); });
}

std::string text_stream::take(token id) {
  decode_options options = options_;
  options.keep_prefix = options_.keep_prefix || !at_start_;
  const std::string bytes = tokens_.decode({&id, 1}, options);
  // control tokens before the text, such as bos, leave its first word the first
  const token_type type = tokens_.type(id);
  if (type != token_type::control && type != token_type::unknown) at_start_ = false;
  pending_ += bytes;
  return take_whole(false);
}

std::string text_stream::flush() {
  std::string rest = with_memory_for("the text of a token", [&] { return take_whole(true); });
  at_start_ = true;
  return rest;
}

std::string text_stream::take_whole(bool all) {
  std::string out;
  std::size_t at = 0;
  while (at < pending_.size()) {
    const utf8_code_point c = decode_utf8(pending_, at);
    if (c.state == utf8_state::truncated && !all) break;
    append_utf8(out, c.value);
    at += c.size;
  }
  pending_.erase(0, at);
  return out;
}

}  // namespace nibble::inline NIBBLE_ABI

// From a conversation to the text that a model was trained to continue.
#pragma once

#include <nibble/base/config.hpp>
#include <nibble/text/tokenizer.hpp>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace nibble::inline NIBBLE_ABI {

struct chat_message {
  std::string role;  // "system", "user" or "assistant"
  std::string content;
};

struct chat_family;

// Knows the common families of templates and tells them by marks in the template's text; the
// template itself, a program from a file, is never run. So what templates compute beyond the
// turns, such as tools, dates and default system messages, does not appear.
class NIBBLE_API chat_template {
 public:
  // `source` is tokenizer.chat_template or a name that families() lists.
  // Throws error(unsupported) that lists the families if it is none of them, or empty.
  explicit chat_template(std::string_view source);

  std::string_view family() const noexcept;
  static std::vector<std::string_view> families();

  // Without the token that begins a text: encoding adds it. `add_generation_prompt`: ends where
  // the assistant's next message begins. Throws invalid_argument for a role that is not known, and
  // for a system message that no user message follows in a family that has no place for one.
  std::string render(std::span<const chat_message> messages,
                     bool add_generation_prompt = true) const;

  // The same as tokens, with the tokens that the model wants at the borders. Markup is markup only
  // where the template put it: "<|im_end|>" in a message is the letters that it is written with.
  std::vector<token> encode(const tokenizer& tokens, std::span<const chat_message> messages,
                            bool add_generation_prompt = true) const;

 private:
  std::vector<text_part> parts(std::span<const chat_message> messages,
                               bool add_generation_prompt) const;

  const chat_family* family_;
};

}  // namespace nibble::inline NIBBLE_ABI

#include <array>
#include <nibble/base/concat.hpp>
#include <nibble/base/error.hpp>
#include <nibble/text/chat_template.hpp>
#include <optional>

#include "base/memory_for.hpp"

namespace nibble::inline NIBBLE_ABI {

// What stands around a message.
struct chat_turn {
  std::string_view before, after;
};

// One family of templates. The texts are those that the families' own templates print.
struct chat_family {
  std::string_view name;
  std::array<std::string_view, 3> marks;  // a template that has all of these (empty ones count not)
  std::array<std::string_view, 3> no_marks;  // and none of these belongs to the family
  chat_turn system, user, assistant;
  std::string_view generation;      // begins the assistant's message
  bool trim = false;                // strips white space around each message
  bool system_inside_user = false;  // no turn of its own: it begins the next user message
  std::string_view again = {};      // before every user message but the first
  std::string_view opening = {};    // before everything
};

namespace {

// clang-format off
constexpr chat_family families_[] = {
  {"phi-4", {"<|im_start|>", "<|im_sep|>"}, {},
   {"<|im_start|>system<|im_sep|>", "<|im_end|>"}, {"<|im_start|>user<|im_sep|>", "<|im_end|>"},
   {"<|im_start|>assistant<|im_sep|>", "<|im_end|>"}, "<|im_start|>assistant<|im_sep|>"},
  {"chatml", {"<|im_start|>"}, {"<end_of_utterance>"},
   {"<|im_start|>system\n", "<|im_end|>\n"}, {"<|im_start|>user\n", "<|im_end|>\n"},
   {"<|im_start|>assistant\n", "<|im_end|>\n"}, "<|im_start|>assistant\n"},
  {"mistral-v7", {"[INST]", "[SYSTEM_PROMPT] "}, {},
   {"[SYSTEM_PROMPT] ", "[/SYSTEM_PROMPT]"}, {"[INST] ", "[/INST]"}, {" ", "</s>"}, ""},
  {"mistral-v7-tekken", {"[INST]", "[SYSTEM_PROMPT]"}, {},
   {"[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]"}, {"[INST]", "[/INST]"}, {"", "</s>"}, ""},
  {"mistral-v1", {"' [INST] ' + system_message"}, {},
   {"", "\n\n"}, {" [INST] ", " [/INST]"}, {" ", "</s>"}, "", false, true},
  {"mistral-v3-tekken", {"\"[INST]\"", "[AVAILABLE_TOOLS]"}, {" [INST]"},
   {"", "\n\n"}, {"[INST]", "[/INST]"}, {"", "</s>"}, "", false, true},
  {"mistral-v3", {"[INST]", "[AVAILABLE_TOOLS]"}, {" [INST]"},
   {"", "\n\n"}, {"[INST] ", "[/INST]"}, {" ", "</s>"}, "", false, true},
  {"llama-2", {"[INST]", "<<SYS>>"}, {},
   {"<<SYS>>\n", "\n<</SYS>>\n\n"}, {"[INST] ", " [/INST]"}, {" ", " </s>"}, "", true, true, "<s>"},
  {"mistral", {"[INST]", "[/INST]"}, {"[AVAILABLE_TOOLS]"},
   {"", "\n\n"}, {"[INST] ", " [/INST]"}, {"", "</s>"}, "", false, true},
  {"llama-3", {"<|start_header_id|>", "<|end_header_id|>"}, {},
   {"<|start_header_id|>system<|end_header_id|>\n\n", "<|eot_id|>"},
   {"<|start_header_id|>user<|end_header_id|>\n\n", "<|eot_id|>"},
   {"<|start_header_id|>assistant<|end_header_id|>\n\n", "<|eot_id|>"},
   "<|start_header_id|>assistant<|end_header_id|>\n\n", true},
  {"llama-4", {"<|header_start|>", "<|header_end|>"}, {},
   {"<|header_start|>system<|header_end|>\n\n", "<|eot|>"},
   {"<|header_start|>user<|header_end|>\n\n", "<|eot|>"},
   {"<|header_start|>assistant<|header_end|>\n\n", "<|eot|>"},
   "<|header_start|>assistant<|header_end|>\n\n", true},
  {"gemma", {"<start_of_turn>"}, {},
   {"", "\n\n"}, {"<start_of_turn>user\n", "<end_of_turn>\n"},
   {"<start_of_turn>model\n", "<end_of_turn>\n"}, "<start_of_turn>model\n", true, true},
  {"harmony", {"<|start|>", "<|channel|>", "<|message|>"}, {},
   {"<|start|>developer<|message|># Instructions\n\n", "\n\n<|end|>"},
   {"<|start|>user<|message|>", "<|end|>"},
   {"<|start|>assistant<|channel|>final<|message|>", "<|end|>"}, "<|start|>assistant",
   false, false, "",
   "<|start|>system<|message|>You are ChatGPT, a large language model trained by OpenAI.\n"
   "Knowledge cutoff: 2024-06\n\nReasoning: medium\n\n# Valid channels: analysis, commentary, "
   "final. Channel must be included for every message.<|end|>"},
  {"phi-3", {"<|assistant|>", "<|end|>"}, {},
   {"<|system|>\n", "<|end|>\n"}, {"<|user|>\n", "<|end|>\n"}, {"<|assistant|>\n", "<|end|>\n"},
   "<|assistant|>\n"},
  {"zephyr", {"<|assistant|>", "<|user|>", "eos_token"}, {"<|endoftext|>", "[gMASK]"},
   {"<|system|>\n", "</s>\n"}, {"<|user|>\n", "</s>\n"}, {"<|assistant|>\n", "</s>\n"},
   "<|assistant|>\n"},
  {"command-r", {"<|START_OF_TURN_TOKEN|>", "<|USER_TOKEN|>"}, {"<|START_RESPONSE|>"},
   {"<|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|>", "<|END_OF_TURN_TOKEN|>"},
   {"<|START_OF_TURN_TOKEN|><|USER_TOKEN|>", "<|END_OF_TURN_TOKEN|>"},
   {"<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>", "<|END_OF_TURN_TOKEN|>"},
   "<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>", true},
  {"granite", {"<|start_of_role|>", "<|end_of_role|>"}, {},
   {"<|start_of_role|>system<|end_of_role|>", "<|end_of_text|>\n"},
   {"<|start_of_role|>user<|end_of_role|>", "<|end_of_text|>\n"},
   {"<|start_of_role|>assistant<|end_of_role|>", "<|end_of_text|>\n"},
   "<|start_of_role|>assistant<|end_of_role|>"},
  {"deepseek-v3", {"<｜User｜>", "<｜Assistant｜>"}, {},
   {"", ""}, {"<｜User｜>", ""}, {"<｜Assistant｜>", "<｜end▁of▁sentence｜>"}, "<｜Assistant｜>"},
  {"deepseek-v2", {"'User: ' + message['content']", "'Assistant: ' + message['content'] + eos_token"},
   {}, {"", "\n\n"}, {"User: ", "\n\n"}, {"Assistant: ", "<｜end▁of▁sentence｜>"}, "Assistant:"},
  {"deepseek-coder", {"### Instruction:", "<|EOT|>"}, {},
   {"", ""}, {"### Instruction:\n", "\n"}, {"### Response:\n", "\n<|EOT|>\n"}, "### Response:\n"},
};
// clang-format on

bool has(std::string_view text, std::string_view mark) {
  return text.find(mark) != text.npos;
}

bool belongs(std::string_view source, const chat_family& family) {
  for (const std::string_view mark : family.marks) {
    if (!mark.empty() && !has(source, mark)) return false;
  }
  for (const std::string_view mark : family.no_marks) {
    if (!mark.empty() && has(source, mark)) return false;
  }
  return true;
}

const chat_family& recognise(std::string_view source) {
  for (const chat_family& family : families_) {
    if (source == family.name || belongs(source, family)) return family;
  }
  std::string known;
  for (const chat_family& family : families_)
    known += concat(known.empty() ? "" : ", ", family.name);
  throw error(errc::unsupported,
              concat(source.empty() ? "The model has no chat template"
                                    : "The model's chat template is of no known family",
                     ". Known are: ", known, "."));
}

std::string_view trim(std::string_view text) {
  constexpr std::string_view space = " \t\n\r\v\f";
  const std::size_t begin = text.find_first_not_of(space);
  if (begin == text.npos) return {};
  return text.substr(begin, text.find_last_not_of(space) - begin + 1);
}

}  // namespace

chat_template::chat_template(std::string_view source)
    : family_(with_memory_for("a chat template", [&] { return &recognise(source); })) {}

std::string_view chat_template::family() const noexcept {
  return family_->name;
}

std::vector<std::string_view> chat_template::families() {
  return with_memory_for("the names of chat templates", [] {
    std::vector<std::string_view> names;
    for (const chat_family& family : families_) names.push_back(family.name);
    return names;
  });
}

std::vector<text_part> chat_template::parts(std::span<const chat_message> messages,
                                            bool add_generation_prompt) const {
  const chat_family& f = *family_;
  std::vector<text_part> out;
  const auto markup = [&](std::string_view text) {
    if (!text.empty()) out.push_back({text, true});
  };
  const auto turn = [&](const chat_turn& around, std::string_view system,
                        std::string_view content) {
    markup(around.before);
    if (!system.empty()) {
      markup(f.system.before);
      out.push_back({system, false});
      markup(f.system.after);
    }
    out.push_back({content, false});
    markup(around.after);
  };

  markup(f.opening);
  std::string_view waiting;  // a system message on its way into the next user message
  bool first = true;
  for (const chat_message& message : messages) {
    const std::string_view content =
        f.trim ? trim(message.content) : std::string_view(message.content);
    if (message.role == "system") {
      if (f.system_inside_user) {
        waiting = content;
      } else {
        turn(f.system, {}, content);
      }
    } else if (message.role == "user") {
      if (!first) markup(f.again);
      turn(f.user, waiting, content);
      waiting = {};
      first = false;
    } else if (message.role == "assistant") {
      turn(f.assistant, {}, content);
    } else {
      throw error(errc::invalid_argument, concat("A message has the role '", message.role,
                                                 "'; roles are system, user and assistant."));
    }
  }
  if (!waiting.empty()) {
    throw error(errc::invalid_argument,
                concat("In chats of the family '", f.name,
                       "' a system message is part of the user message after it; there is none."));
  }
  if (add_generation_prompt) markup(f.generation);
  return out;
}

std::string chat_template::render(std::span<const chat_message> messages,
                                  bool add_generation_prompt) const {
  return with_memory_for("a conversation", [&] {
    std::string out;
    for (const text_part& part : parts(messages, add_generation_prompt)) out += part.text;
    return out;
  });
}

std::vector<token> chat_template::encode(const tokenizer& tokens,
                                         std::span<const chat_message> messages,
                                         bool add_generation_prompt) const {
  std::vector<token> ids = with_memory_for(
      "a conversation", [&] { return tokens.encode(parts(messages, add_generation_prompt)); });
  // a text to be continued does not end yet
  if (tokens.adds_eos() && !ids.empty() && ids.back() == tokens.eos()) ids.pop_back();
  return ids;
}

}  // namespace nibble::inline NIBBLE_ABI

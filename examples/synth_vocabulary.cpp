#include "synth_vocabulary.hpp"

#include <algorithm>
#include <cstdio>
#include <nibble/base/concat.hpp>
#include <nibble/base/error.hpp>
#include <nibble/text/byte_names.hpp>
#include <nibble/text/tokenizer.hpp>
#include <span>
#include <vector>

#include "synth_words.hpp"

namespace synth {
namespace {

using nibble::concat;
using nibble::token_type;

struct special {
  std::int32_t slot;  // published id, counted from the first special one
  std::string_view name;
  token_type type = token_type::control;
};

// Numbers for the names of unused slots: how many came before, or the id.
enum class counting { slots, ids };

struct family {
  std::string_view name;
  std::string_view model, pre;  // tokenizer.ggml.*
  std::int32_t published;       // tokens
  std::int32_t first_special;   // published id; 0: they come before the text's tokens
  std::int32_t slots;           // special ones and those kept free for more
  std::span<const special> specials;
  std::string_view filler, filler_end;  // names of free slots, around a number
  counting numbers;
  token_type filler_type;
  int digits;  // of a number that make one token at most
  std::string_view bos, eos, padding, unknown, eot;
  bool add_bos;
  std::string_view chat_template;
};

// The ids and names of special tokens are those of the models' own tokenizer.json and
// tokenizer_config.json: meta-llama/Llama-3.1-8B-Instruct, Qwen/Qwen3-4B, openai/gpt-oss-20b,
// google/gemma-3-12b-it, mistralai/Mistral-Small-3.1-24B-Instruct-2503.
constexpr special llama_specials[] = {
    {0, "<|begin_of_text|>"},   {1, "<|end_of_text|>"},   {4, "<|finetune_right_pad_id|>"},
    {6, "<|start_header_id|>"}, {7, "<|end_header_id|>"}, {8, "<|eom_id|>"},
    {9, "<|eot_id|>"},          {10, "<|python_tag|>"},
};

constexpr token_type text_type = token_type::user_defined;
constexpr special qwen_specials[] = {
    {0, "<|endoftext|>"},
    {1, "<|im_start|>"},
    {2, "<|im_end|>"},
    {3, "<|object_ref_start|>"},
    {4, "<|object_ref_end|>"},
    {5, "<|box_start|>"},
    {6, "<|box_end|>"},
    {7, "<|quad_start|>"},
    {8, "<|quad_end|>"},
    {9, "<|vision_start|>"},
    {10, "<|vision_end|>"},
    {11, "<|vision_pad|>"},
    {12, "<|image_pad|>"},
    {13, "<|video_pad|>"},
    {14, "<tool_call>", text_type},
    {15, "</tool_call>", text_type},
    {16, "<|fim_prefix|>"},
    {17, "<|fim_middle|>"},
    {18, "<|fim_suffix|>"},
    {19, "<|fim_pad|>"},
    {20, "<|repo_name|>"},
    {21, "<|file_sep|>"},
    {22, "<tool_response>", text_type},
    {23, "</tool_response>", text_type},
    {24, "<think>", text_type},
    {25, "</think>", text_type},
};

constexpr special harmony_specials[] = {
    {0, "<|startoftext|>"}, {1, "<|endoftext|>"},    {4, "<|return|>"}, {5, "<|constrain|>"},
    {7, "<|channel|>"},     {8, "<|start|>"},        {9, "<|end|>"},    {10, "<|message|>"},
    {14, "<|call|>"},       {20, "<|endofprompt|>"},
};

constexpr special gemma_specials[] = {
    {0, "<pad>"},           {1, "<eos>"},
    {2, "<bos>"},           {3, "<unk>", token_type::unknown},
    {4, "<mask>"},          {105, "<start_of_turn>"},
    {106, "<end_of_turn>"},
};

constexpr special mistral_specials[] = {
    {0, "<unk>", token_type::unknown},
    {1, "<s>"},
    {2, "</s>"},
    {3, "[INST]"},
    {4, "[/INST]"},
    {11, "<pad>"},
    {17, "[SYSTEM_PROMPT]"},
    {18, "[/SYSTEM_PROMPT]"},
};

constexpr std::string_view llama_template =
    "{{ bos_token }}{% for message in messages %}<|start_header_id|>{{ message['role'] }}"
    "<|end_header_id|>\n\n{{ message['content'] | trim }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}";
constexpr std::string_view qwen_template =
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";
constexpr std::string_view harmony_template =
    "{% for message in messages %}<|start|>{{ message['role'] }}{% if message['role'] == "
    "'assistant' %}<|channel|>final{% endif %}<|message|>{{ message['content'] }}<|end|>"
    "{% endfor %}{% if add_generation_prompt %}<|start|>assistant{% endif %}";
constexpr std::string_view gemma_template =
    "{{ bos_token }}{% for message in messages %}<start_of_turn>{{ 'model' if message['role'] == "
    "'assistant' else 'user' }}\n{{ message['content'] | trim }}<end_of_turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}";
constexpr std::string_view mistral_template =
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}[INST]"
    "{{ message['content'] }}[/INST]{% elif message['role'] == 'system' %}[SYSTEM_PROMPT]"
    "{{ message['content'] }}[/SYSTEM_PROMPT]{% else %}{{ message['content'] }}</s>{% endif %}"
    "{% endfor %}";

constexpr family families[] = {
    {"llama-bpe", "gpt2", "llama-bpe", 128256, 128000, 256, llama_specials,
     "<|reserved_special_token_", "|>", counting::slots, token_type::control, 3,
     "<|begin_of_text|>", "<|eot_id|>", "<|finetune_right_pad_id|>", "", "", true, llama_template},
    {"qwen2", "gpt2", "qwen2", 151936, 151643, 293, qwen_specials, "[PAD", "]", counting::ids,
     token_type::unused, 1, "<|endoftext|>", "<|im_end|>", "<|endoftext|>", "", "", false,
     qwen_template},
    {"gpt-4o", "gpt2", "gpt-4o", 201088, 199998, 1090, harmony_specials, "<|reserved_", "|>",
     counting::ids, token_type::control, 3, "<|startoftext|>", "<|return|>", "<|endoftext|>", "",
     "", false, harmony_template},
    {"gemma", "llama", "default", 262208, 0, 107, gemma_specials, "<unused", ">", counting::slots,
     token_type::control, 1, "<bos>", "<eos>", "<pad>", "<unk>", "<end_of_turn>", true,
     gemma_template},
    {"tekken", "gpt2", "tekken", 131072, 0, 1000, mistral_specials, "<SPECIAL_", ">", counting::ids,
     token_type::control, 1, "<s>", "</s>", "<pad>", "<unk>", "", true, mistral_template},
};

const family& find_family(std::string_view name) {
  for (const family& f : families) {
    if (f.name == name) return f;
  }
  throw nibble::error(nibble::errc::invalid_argument,
                      concat("there is no family of vocabularies '", name, "'; there are ",
                             vocabulary_families(), "."));
}

struct entry {
  std::string name;
  token_type type;
};

std::vector<entry> special_tokens(const family& f, bool published) {
  std::vector<entry> out;
  if (!published) {
    for (const special& s : f.specials) out.push_back({std::string(s.name), s.type});
    return out;
  }
  std::int32_t free = 0;
  auto next = f.specials.begin();
  for (std::int32_t slot = 0; slot < f.slots; ++slot) {
    if (next != f.specials.end() && next->slot == slot) {
      out.push_back({std::string(next->name), next->type});
      ++next;
      continue;
    }
    const std::int32_t number = f.numbers == counting::ids ? f.first_special + slot : free;
    out.push_back({concat(f.filler, number, f.filler_end), f.filler_type});
    ++free;
  }
  return out;
}

// A space is U+2581 in vocabularies of SentencePiece's kind.
std::string with_marked_spaces(std::string_view text) {
  std::string out;
  for (const char c : text) c == ' ' ? out += "\xe2\x96\x81" : out += c;
  return out;
}

class vocabulary_maker {
 public:
  vocabulary_maker(const family& f, std::int32_t size, const std::function<void()>& check)
      : family_(f),
        size_(static_cast<std::size_t>(size)),
        by_characters_(f.model == "llama"),
        check_(check) {
    const bool published = size == f.published;
    const auto specials = special_tokens(f, published);
    const std::size_t least = specials.size() + 256 + (by_characters_ ? 1 : 0);
    if (size_ < least) {
      throw nibble::error(nibble::errc::invalid_argument,
                          concat("a vocabulary of the family ", f.name, " has at least ", least,
                                 " tokens, of which 256 are bytes; --n-vocab is ", size, "."));
    }
    if (size > most_tokens) {
      throw nibble::error(nibble::errc::invalid_argument,
                          concat("a vocabulary has at most ", most_tokens,
                                 " tokens, so that a file's header holds it; --n-vocab is ", size,
                                 ". With --no-vocabulary more are possible."));
    }
    if (f.first_special == 0) append(specials);
    append_text(size_ - specials.size());
    if (f.first_special != 0) append(specials);
  }

  void write(nibble::gguf::writer& out) const {
    out.set("tokenizer.ggml.model", family_.model);
    out.set("tokenizer.ggml.pre", family_.pre);
    out.set_array("tokenizer.ggml.tokens", std::span<const std::string>(names_));
    if (by_characters_) out.set_array("tokenizer.ggml.scores", std::span<const float>(scores_));
    out.set_array("tokenizer.ggml.token_type", std::span<const std::int32_t>(types_));
    if (!by_characters_) {
      out.set_array("tokenizer.ggml.merges", std::span<const std::string>(merges_));
    }
    set_id(out, "bos", family_.bos);
    set_id(out, "eos", family_.eos);
    set_id(out, "eot", family_.eot);
    set_id(out, "unknown", family_.unknown);
    set_id(out, "padding", family_.padding);
    out.set("tokenizer.ggml.add_bos_token", family_.add_bos);
    if (by_characters_) out.set("tokenizer.ggml.add_space_prefix", false);
    out.set("tokenizer.chat_template", family_.chat_template);
  }

 private:
  void append(std::string name, token_type type, float score) {
    names_.push_back(std::move(name));
    types_.push_back(static_cast<std::int32_t>(type));
    scores_.push_back(score);
  }

  void append(const std::vector<entry>& entries) {
    constexpr float never = -1000;
    for (const entry& e : entries) append(e.name, e.type, never);
  }

  void append_bytes() {
    for (unsigned byte = 0; byte < 256; ++byte) {
      char name[8];
      std::snprintf(name, sizeof name, "<0x%02X>", byte);
      append(name, token_type::byte, 0);
    }
  }

  // `count` tokens that text is made of.
  void append_text(std::size_t count) {
    if (by_characters_) {
      append_bytes();
      count -= 256;
    }
    using alphabet = merge_builder::alphabet;
    merge_builder built(by_characters_ ? alphabet::characters : alphabet::bytes, count);
    for_each_word(family_.digits, [&](std::string_view word) {
      check_();
      built.add(word);
      return !built.full();
    });
    const auto spelled = [&](const std::string& token) {
      return by_characters_ ? with_marked_spaces(token) : nibble::byte_level_name(token);
    };
    float score = 0;
    for (const std::string& token : built.tokens()) {
      check_();
      append(spelled(token), token_type::normal, score);
      score -= 1;
    }
    if (by_characters_) return;
    for (const auto& [left, right] : built.merges()) {
      check_();
      merges_.push_back(concat(spelled(built.tokens()[left]), " ", spelled(built.tokens()[right])));
    }
  }

  void set_id(nibble::gguf::writer& out, std::string_view key, std::string_view name) const {
    if (name.empty()) return;
    const auto at = std::find(names_.begin(), names_.end(), name) - names_.begin();
    out.set(concat("tokenizer.ggml.", key, "_token_id"), static_cast<std::uint32_t>(at));
  }

  const family& family_;
  std::size_t size_;
  bool by_characters_;
  const std::function<void()>& check_;
  std::vector<std::string> names_, merges_;
  std::vector<std::int32_t> types_;
  std::vector<float> scores_;
};

}  // namespace

void write_vocabulary(nibble::gguf::writer& out, std::string_view family, std::int32_t size,
                      const std::function<void()>& check) {
  vocabulary_maker(find_family(family), size, check).write(out);
}

std::string vocabulary_families() {
  std::string names;
  for (const family& f : families) names += concat(names.empty() ? "" : ", ", f.name);
  return names;
}

}  // namespace synth

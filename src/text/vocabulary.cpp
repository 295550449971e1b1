#include <algorithm>
#include <cmath>
#include <gguf/cursor.hpp>
#include <limits>
#include <nibble/base/concat.hpp>
#include <nibble/base/error.hpp>
#include <nibble/base/utf8.hpp>
#include <text/pre_tokenizer.hpp>
#include <text/vocabulary.hpp>

namespace nibble::inline NIBBLE_ABI::text {
namespace {

constexpr std::string_view model_key = "tokenizer.ggml.model";
constexpr std::string_view pre_key = "tokenizer.ggml.pre";
constexpr std::string_view tokens_key = "tokenizer.ggml.tokens";
constexpr std::string_view scores_key = "tokenizer.ggml.scores";
constexpr std::string_view types_key = "tokenizer.ggml.token_type";

[[noreturn]] void refuse(const std::string& file, const std::string& sentence,
                         errc code = errc::bad_file) {
  throw error(code, sentence, {.file = file});
}

void read_kind(const gguf::file& file, vocabulary& v) {
  const auto model = file.get<std::string_view>(model_key);
  if (!model || *model == "no_vocab" || *model == "none") {
    refuse(
        v.file,
        concat("The file has no vocabulary (", model_key,
               model ? concat(" is '", gguf::printable(*model), "'") : std::string(" is missing"),
               "); give token ids instead of text."),
        errc::unsupported);
  }
  if (*model == "llama") {
    v.kind = tokenizer_kind::sentencepiece;
  } else if (*model == "bert") {
    v.kind = tokenizer_kind::wordpiece;
  } else if (*model == "gpt2" || *model == "gemma4") {
    const auto pre = file.get<std::string_view>(pre_key);
    v.pre = *model == "gemma4" ? "gemma4" : std::string(pre.value_or(""));
    if (v.pre.empty()) {
      refuse(v.file,
             concat(pre_key,
                    " is missing; without it the text cannot be cut into words. "
                    "Convert the model again with a newer converter."),
             errc::unsupported);
    }
    const auto rules = find_pre_tokenizer(v.pre);
    v.kind = rules.byte_level ? tokenizer_kind::byte_level_bpe : tokenizer_kind::raw_bpe;
    v.add_bos = rules.add_bos;
  } else {
    refuse(v.file,
           concat(model_key, " is '", gguf::printable(*model),
                  "', which is not known. Known are: llama, gpt2, gemma4, bert."),
           errc::unsupported);
  }
  if (v.kind == tokenizer_kind::sentencepiece) v.add_bos = v.add_space_prefix = true;
  if (v.kind == tokenizer_kind::wordpiece) v.add_bos = v.add_separator = true;
}

void read_names(const gguf::file& file, vocabulary& v) {
  const auto names = file.get_array<std::string_view>(tokens_key);
  if (!names || names->empty()) {
    refuse(v.file, concat(tokens_key, names ? " is empty." : " is missing."));
  }
  if (names->size() > static_cast<std::size_t>(std::numeric_limits<token>::max())) {
    refuse(v.file, concat(tokens_key, " has ", names->size(), " entries; at most ",
                          std::numeric_limits<token>::max(), " can have ids."));
  }
  v.by_name = text_table(names->size());
  for (std::size_t i = 0; i < names->size(); ++i) {
    v.names.push_back((*names)[i]);
    // a few models have nameless tokens: they have ids, and text never becomes one
    if (!(*names)[i].empty()) v.by_name.insert(v.names, static_cast<token>(i));
  }
}

void read_types(const gguf::file& file, vocabulary& v) {
  const std::size_t count = v.names.size();
  const auto types = file.get_array<std::int32_t>(types_key);
  if (types && types->size() != count) {
    refuse(v.file, concat(types_key, " has ", types->size(), " entries, but ", tokens_key, " has ",
                          count, "."));
  }
  v.types.assign(count, token_type::normal);
  for (std::size_t i = 0; i < count; ++i) {
    if (!types) {
      if (parse_byte_name(v.names[i])) v.types[i] = token_type::byte;
      continue;
    }
    const std::int32_t type = (*types)[i];
    if (type < 0 || type > static_cast<std::int32_t>(token_type::byte)) {
      refuse(v.file, concat(types_key, "[", i, "] is ", type, "; types are 0 to 6."));
    }
    v.types[i] = static_cast<token_type>(type);
  }
}

void read_scores(const gguf::file& file, vocabulary& v) {
  if (v.kind != tokenizer_kind::sentencepiece) return;
  auto scores = file.get_array<float>(scores_key);
  if (!scores) {
    refuse(v.file,
           concat(scores_key, " is missing; a vocabulary of the kind 'llama' merges by it."));
  }
  if (scores->size() != v.names.size()) {
    refuse(v.file, concat(scores_key, " has ", scores->size(), " entries, but ", tokens_key,
                          " has ", v.names.size(), "."));
  }
  for (std::size_t i = 0; i < scores->size(); ++i) {
    if (!std::isfinite((*scores)[i])) {
      refuse(v.file, concat(scores_key, "[", i, "] is ", (*scores)[i], ", not a finite number."));
    }
  }
  v.scores = std::move(*scores);
}

std::optional<token> read_id(const gguf::file& file, const vocabulary& v, std::string_view name) {
  const std::string key = concat("tokenizer.ggml.", name, "_token_id");
  const auto id = file.get<std::int64_t>(key);
  // -1, also as an unsigned number, is how some converters say "none"
  if (!id || *id == -1 || *id == std::numeric_limits<std::uint32_t>::max()) return {};
  if (*id < 0 || *id >= v.size()) {
    refuse(v.file,
           concat(key, " is ", *id, ", but the vocabulary has the ids 0 to ", v.size() - 1, "."));
  }
  return static_cast<token>(*id);
}

// What the keys do not say, older files leave to the kind of vocabulary.
void default_to(std::optional<token>& id, const vocabulary& v, std::string_view name) {
  const token found = v.token_of_name(name);
  if (!id && found != text_table::absent) id = found;
}

void read_special_ids(const gguf::file& file, vocabulary& v) {
  v.bos = read_id(file, v, "bos");
  v.eos = read_id(file, v, "eos");
  v.eot = read_id(file, v, "eot");
  v.eom = read_id(file, v, "eom");
  v.unknown = read_id(file, v, "unknown");
  v.padding = read_id(file, v, "padding");
  v.mask = read_id(file, v, "mask");
  v.separator = read_id(file, v, "seperator");  // the key's own spelling
  if (!v.separator) v.separator = read_id(file, v, "separator");
  const auto cls = read_id(file, v, "cls");
  if (v.kind == tokenizer_kind::wordpiece) {
    if (!v.bos) v.bos = cls;
    default_to(v.bos, v, "[CLS]");
    default_to(v.separator, v, "[SEP]");
    default_to(v.unknown, v, "[UNK]");
    default_to(v.padding, v, "[PAD]");
    default_to(v.mask, v, "[MASK]");
  } else if (v.kind == tokenizer_kind::sentencepiece) {
    default_to(v.bos, v, "<s>");
    default_to(v.eos, v, "</s>");
    default_to(v.unknown, v, "<unk>");
  }
}

void read_flags(const gguf::file& file, vocabulary& v) {
  const auto flag = [&](std::string_view key, bool& value) {
    value = file.get<bool>(concat("tokenizer.ggml.", key)).value_or(value);
  };
  const bool must_have_bos = v.kind == tokenizer_kind::raw_bpe;  // its models fail without
  flag("add_bos_token", v.add_bos);
  flag("add_eos_token", v.add_eos);
  flag("add_sep_token", v.add_separator);
  flag("add_space_prefix", v.add_space_prefix);
  v.add_bos = v.add_bos || must_have_bos;
  flag("normalizer.lowercase", v.lower_case);
  v.strip_accents = v.lower_case;
  flag("normalizer.strip_accents", v.strip_accents);

  const auto need = [&](bool add, const std::optional<token>& id, std::string_view name) {
    if (add && !id) {
      refuse(v.file, concat("The model asks for tokenizer.ggml.", name,
                            "_token_id at the text's border, but the key is missing."));
    }
  };
  need(v.add_bos, v.bos, "bos");
  need(v.add_eos, v.eos, "eos");
  if (v.kind == tokenizer_kind::wordpiece) {
    need(true, v.separator, "seperator");
    need(true, v.unknown, "unknown");
  }
}

// Models of this family strip white space after their markup; no key says so, only the name.
void read_family_quirks(const gguf::file& file, vocabulary& v) {
  std::string name(file.get<std::string_view>("general.name").value_or(""));
  for (char& c : name) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c;
  v.markup_eats_space = v.kind == tokenizer_kind::sentencepiece &&
                        (name.find("phi-3") != name.npos || name.find("phi3") != name.npos);
}

// The bytes that token `i` stands for.
std::string piece_of(const vocabulary& v, std::size_t i) {
  const std::string_view name = v.names[i];
  switch (v.types[i]) {
    case token_type::control:
    case token_type::unknown:
    case token_type::user_defined:
      return std::string(name);
    case token_type::byte: {
      const auto byte = parse_byte_name(name);
      if (!byte) {
        refuse(v.file, concat("Token ", i, " has the type of a byte, but its name is '",
                              gguf::printable(name), "' instead of <0x00> to <0xFF>."));
      }
      return std::string(1, static_cast<char>(*byte));
    }
    default:
      break;
  }
  if (v.kind == tokenizer_kind::byte_level_bpe) {
    return bytes_of_characters(name).value_or(std::string(name));
  }
  std::string out;
  for (std::size_t at = 0; at < name.size();) {
    const bool space = name.substr(at).starts_with(space_mark);
    out += space ? ' ' : name[at];
    at += space ? space_mark.size() : 1;
  }
  return out;
}

void make_pieces(vocabulary& v) {
  v.byte_tokens.fill(text_table::absent);
  for (std::size_t i = 0; i < v.types.size(); ++i) {
    v.pieces.push_back(piece_of(v, i));
    if ((v.is_markup(static_cast<token>(i)) || v.types[i] == token_type::user_defined) &&
        v.names[i].size() > longest_markup) {
      refuse(v.file, concat("The name of token ", i, ", which is markup, has ", v.names[i].size(),
                            " bytes; at most ", longest_markup, " are allowed."));
    }
    if (v.types[i] == token_type::byte) {
      token& slot = v.byte_tokens[static_cast<std::uint8_t>(v.pieces[i][0])];
      if (slot == text_table::absent) slot = static_cast<token>(i);
    }
  }
  if (v.kind != tokenizer_kind::byte_level_bpe) return;
  for (int byte = 0; byte < 256; ++byte) {
    std::string name;
    append_utf8(name, byte_character(static_cast<std::uint8_t>(byte)));
    const token id = v.token_of_name(name);
    // A name may mean itself: deepseek's user-defined tokens "À", "õ", ... are these characters of
    // text, and the bytes 0xC0, 0xF5, ... have no token there.
    if (id == text_table::absent || v.is_markup(id)) continue;
    const std::string_view piece = v.pieces[id];
    if (piece.size() == 1 && static_cast<std::uint8_t>(piece[0]) == byte) {
      v.byte_tokens[byte] = id;
    }
  }
}

// Names that end a turn wherever they occur as markup.
constexpr std::string_view end_names[] = {
    "<|eot_id|>", "<|eom_id|>", "<|im_end|>", "<|end|>", "<|endoftext|>", "<|end_of_text|>",
    "<|return|>", "<|call|>", "<|calls|>", "<|flush|>", "<end_of_turn>", "<turn|>", "</s>", "<eos>",
    "<EOT>", "_<EOT>", "[EOT]", "[EOS]", "<end_of_utterance>", "<|tool_response>", "<|eot|>",
    "<\xef\xbd\x9c"
    "end\xe2\x96\x81of\xe2\x96\x81sentence\xef\xbd\x9c>",
    // these separate files: after one of them a new text begins
    "<|fim_pad|>", "<|repo_name|>", "<|file_sep|>"};

void find_end_tokens(vocabulary& v) {
  v.ends_generation.assign(v.types.size(), false);
  for (const auto& id : {v.eos, v.eot, v.eom}) {
    if (id) v.ends_generation[*id] = true;
  }
  const auto find_markup = [&](std::string_view name) {
    const token id = v.token_of_name(name);
    return id != text_table::absent && v.types[id] == token_type::control ? id : text_table::absent;
  };
  for (const std::string_view name : end_names) {
    if (const token id = find_markup(name); id != text_table::absent) v.ends_generation[id] = true;
  }
  // where <|return|> or <|flush|> ends a turn, <|end|> ends one message of several (harmony format)
  const token end = find_markup("<|end|>");
  const bool harmony = find_markup("<|return|>") != text_table::absent ||
                       find_markup("<|flush|>") != text_table::absent;
  if (end != text_table::absent && harmony && v.eos != end) v.ends_generation[end] = false;
  // Gemma 4 has </s> as a relic of HTML
  const token html = find_markup("</s>");
  if (html != text_table::absent && v.kind == tokenizer_kind::raw_bpe && v.eos != html) {
    v.ends_generation[html] = false;
  }
}

}  // namespace

vocabulary read_vocabulary(const gguf::file& file) {
  vocabulary v;
  v.file = file.name();
  read_kind(file, v);
  read_names(file, v);
  read_types(file, v);
  read_scores(file, v);
  read_special_ids(file, v);
  if (!file.find(types_key)) {
    for (const auto& id : {v.bos, v.eos, v.eot, v.eom}) {
      if (id) v.types[*id] = token_type::control;
    }
    if (v.unknown) v.types[*v.unknown] = token_type::unknown;
  }
  read_flags(file, v);
  read_family_quirks(file, v);
  make_pieces(v);
  find_end_tokens(v);
  v.chat_template = file.get<std::string_view>("tokenizer.chat_template").value_or("");
  return v;
}

}  // namespace nibble::inline NIBBLE_ABI::text

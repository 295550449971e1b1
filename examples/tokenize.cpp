// nibble-tokenize: text to token ids, and back.
#include "common.hpp"

namespace {

struct options {
  std::string model;
  bool decode = false, no_bos = false, no_special = false, parse_special = false, pieces = false;
};

std::string on_one_line(const std::vector<nibble::token>& ids) {
  std::string out;
  for (const nibble::token id : ids) out += (out.empty() ? "" : " ") + std::to_string(id);
  return out + '\n';
}

// One line a token: its id and its bytes, with what cannot be seen written as \xHH.
std::string line_by_line(const nibble::tokenizer& tokenizer,
                         const std::vector<nibble::token>& ids) {
  constexpr char hex[] = "0123456789abcdef";
  std::string out;
  for (const nibble::token id : ids) {
    out += std::to_string(id) + '\t';
    for (const char c : tokenizer.piece(id, true)) {
      const auto byte = static_cast<unsigned char>(c);
      if (byte > 0x20 && byte < 0x7f && c != '\\') {
        out += c;
      } else {
        out += {'\\', 'x', hex[byte >> 4], hex[byte & 15]};
      }
    }
    out += '\n';
  }
  return out;
}

std::vector<nibble::token> encode(const nibble::tokenizer& tokenizer, const options& o) {
  const std::string text = common::read_standard_input();
  auto ids =
      tokenizer.encode(text, {.add_special = !o.no_special, .parse_special = o.parse_special});
  if (o.no_bos && tokenizer.adds_bos() && !o.no_special) ids.erase(ids.begin());
  return ids;
}

std::vector<nibble::token> read_ids() {
  common::text_input in("-", common::standard_input);
  return common::read_tokens(in);
}

std::string tokenize(const options& o) {
  const nibble::tokenizer tokenizer{nibble::gguf::file{o.model}};
  const auto ids = o.decode ? read_ids() : encode(tokenizer, o);
  if (o.pieces) return line_by_line(tokenizer, ids);
  return o.decode ? tokenizer.decode(ids, {.special = o.parse_special}) : on_one_line(ids);
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{"Reads text from standard input and prints the model's token ids on one line."};
  options o;
  app.add_option("model", o.model, "GGUF file; only its vocabulary is read")->required();
  app.add_flag("--decode", o.decode, "The other way: reads ids, prints text");
  app.add_flag("--no-bos", o.no_bos,
               "Leaves out the token that begins a text, where the model asks for one");
  app.add_flag("--no-special", o.no_special,
               "Leaves out every token that the model asks for at the text's borders");
  app.add_flag(
      "--parse-special", o.parse_special,
      "Markup in the text, such as <|im_end|>, becomes control tokens; with --decode, control "
      "tokens are printed");
  app.add_flag("--pieces", o.pieces, "One token a line: its id and its bytes");
  if (const auto status = common::parse(app, argc, argv)) return *status;

  return common::run([&] { std::cout << tokenize(o); });
}

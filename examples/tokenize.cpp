// nibble-tokenize: text to token ids, and back.
#include <CLI/CLI.hpp>
#include <iostream>
#include <iterator>
#include <nibble/text/tokenizer.hpp>
#include <string>
#include <vector>

namespace {

// One line a token: its id and its bytes, with what cannot be seen written as \xHH.
void print_piece(const nibble::tokenizer& tokenizer, nibble::token id) {
  constexpr char hex[] = "0123456789abcdef";
  std::cout << id << '\t';
  for (const char c : tokenizer.piece(id, true)) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte > 0x20 && byte < 0x7f && c != '\\') {
      std::cout << c;
    } else {
      std::cout << "\\x" << hex[byte >> 4] << hex[byte & 15];
    }
  }
  std::cout << '\n';
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{"Reads text from standard input and prints the model's token ids on one line."};
  std::string model;
  bool decode = false, no_bos = false, no_special = false, parse_special = false, pieces = false;
  app.add_option("model", model, "GGUF file; only its vocabulary is read")->required();
  app.add_flag("--decode", decode, "The other way: reads ids, prints text");
  app.add_flag("--no-bos", no_bos,
               "Leaves out the token that begins a text, where the model asks for one");
  app.add_flag("--no-special", no_special,
               "Leaves out every token that the model asks for at the text's borders");
  app.add_flag(
      "--parse-special", parse_special,
      "Markup in the text, such as <|im_end|>, becomes control tokens; with --decode, control "
      "tokens are printed");
  app.add_flag("--pieces", pieces, "One token a line: its id and its bytes");
  CLI11_PARSE(app, argc, argv);

  try {
    const nibble::tokenizer tokenizer{nibble::gguf::file{model}};
    std::vector<nibble::token> ids;
    if (decode) {
      for (nibble::token id; std::cin >> id;) ids.push_back(id);
      if (!std::cin.eof()) throw std::runtime_error("The input is not a list of token ids.");
      if (!pieces) std::cout << tokenizer.decode(ids, {.special = parse_special});
    } else {
      std::cin >> std::noskipws;
      const std::string text{std::istreambuf_iterator<char>(std::cin), {}};
      ids = tokenizer.encode(text, {.add_special = !no_special, .parse_special = parse_special});
      if (no_bos && tokenizer.adds_bos() && !no_special) ids.erase(ids.begin());
      for (std::size_t i = 0; !pieces && i < ids.size(); ++i) {
        std::cout << (i == 0 ? "" : " ") << ids[i];
      }
      if (!pieces) std::cout << '\n';
    }
    if (pieces) {
      for (const nibble::token id : ids) print_piece(tokenizer, id);
    }
    return std::cout.flush() ? 0 : 1;
  } catch (const std::exception& e) {
    std::cerr << "nibble-tokenize: " << e.what() << '\n';
    return 1;
  }
}

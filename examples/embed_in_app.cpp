// The least that an application needs: load a model, ask it, print the answer as it comes.

#include <iostream>
#include <nibble/nibble.hpp>

int main(int argc, char** argv) {
  if (argc != 3) {
    const bool help = argc == 2 && std::string_view(argv[1]) == "--help";
    (help ? std::cout : std::cerr) << "usage: nibble-embed-in-app MODEL.gguf QUESTION\n";
    return help ? 0 : 2;
  }
  try {
    const nibble::gguf::file file{argv[1]};
    const nibble::model model{file};
    nibble::session chat(model, {.temperature = 0.7f, .seed = 1});

    const nibble::chat_message question[] = {{"user", argv[2]}};
    for (std::string_view piece : chat.reply(question, {.max_tokens = 200})) {
      std::cout << piece << std::flush;
    }
    std::cout << std::endl;
    if (!std::cout) throw nibble::error(nibble::errc::io, "the answer cannot be written.");
  } catch (const nibble::error& e) {
    std::cerr << e.what() << '\n';  // a whole sentence: what is wrong, where, what would be right
    return 1;
  }
}

// A program of somebody else: consumer [MODEL]
#include <iostream>
#include <nibble/nibble.hpp>

namespace {

// An exception of nibble's is caught as such, also out of a shared library.
bool refuses_missing_file() {
  try {
    nibble::gguf::file missing("no-such-model.gguf");
  } catch (const nibble::error& e) {
    std::cout << "caught: " << e.what() << '\n';
    return e.code() == nibble::errc::io;
  }
  return false;
}

void generate(const char* path) {
  const nibble::model model(nibble::gguf::file{path});
  nibble::session session(model);
  std::cout << "generated:";
  for (auto piece : session.generate("Once upon a time", {.max_tokens = 16})) std::cout << piece;
  std::cout << '\n';
}

}  // namespace

int main(int argc, char** argv) try {
  std::cout << "nibble " << NIBBLE_VERSION_MAJOR << '.' << NIBBLE_VERSION_MINOR << '.'
            << NIBBLE_VERSION_PATCH << '\n';
  if (!refuses_missing_file()) return 1;
  if (argc > 1) generate(argv[1]);
} catch (const nibble::error& e) {
  std::cerr << "error: " << e.what() << '\n';
  return 1;
}

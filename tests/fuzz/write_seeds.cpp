// nibble_fuzz_seeds_<name> FOLDER: writes the files that one fuzz target starts from.
#include "write_seeds.hpp"

#include <cstdio>
#include <exception>

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: %s FOLDER\n", argv[0]);
    return 1;
  }
  try {
    std::filesystem::create_directories(argv[1]);
    write_seeds(argv[1]);
    return 0;
  } catch (const std::exception& e) {
    std::fprintf(stderr, "%s\n", e.what());
    return 1;
  }
}

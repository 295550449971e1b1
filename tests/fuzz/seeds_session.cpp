// Saved sessions of every length and past, for the fuzzer to start from.
#include <fuzz/session_model.hpp>

#include "write_seeds.hpp"

void write_seeds(const std::filesystem::path& folder) {
  const nibble::model model = test::session_model();
  const auto save = [&](const char* name, std::size_t tokens, std::int32_t keep = 0,
                        std::int32_t drop = 0) {
    nibble::session s(model);
    if (tokens > 0) s.append(test::session_tokens(tokens));
    s.shift(keep, drop);
    s.save(folder / name);
  };
  save("empty", 0);
  save("one", 1);
  save("page", 64);
  save("pages", 150);
  save("gap-in-a-page", 80, 5, 10);
  save("gap", 150, 5, 100);
  save("shifted", 100, 0, 70);
}

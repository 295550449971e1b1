// nibble-logits: the logits of every position of a token sequence, as raw floats.

#include <fstream>
#include <vector>

#include "common.hpp"

namespace {

std::vector<nibble::token> read_tokens(const std::string& path) {
  std::ifstream in(path);
  if (!in) throw nibble::error(nibble::errc::io, "cannot be opened.", {.file = path});
  std::vector<nibble::token> tokens;
  for (std::string word; in >> word;) {
    std::size_t used = 0;
    int id = -1;
    try {
      id = std::stoi(word, &used);
    } catch (const std::exception&) {
      used = 0;
    }
    if (used != word.size()) {
      throw nibble::error(nibble::errc::invalid_argument,
                          "'" + word + "' is not a token id; whole numbers were expected.",
                          {.file = path});
    }
    tokens.push_back(id);
  }
  if (tokens.empty()) {
    throw nibble::error(nibble::errc::invalid_argument, "holds no token ids.", {.file = path});
  }
  return tokens;
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{
      "Writes the logits of every position: raw little-endian float32 [n_tokens, n_vocab]."};
  common::load_options load;
  load.add_to(app);
  load.set_kv("f32");  // what is compared with references should not be rounded on the way
  std::string tokens_path, out_path;
  app.add_option("tokens", tokens_path, "file with token ids between white space")->required();
  app.add_option("out", out_path, "file to write")->required();
  CLI11_PARSE(app, argc, argv);

  return common::run([&] {
    const auto tokens = read_tokens(tokens_path);
    load.model.plan.all_logits = true;
    if (load.model.plan.context == 0) {
      load.model.plan.context = static_cast<std::int32_t>(tokens.size());
    }
    const nibble::model model(nibble::gguf::file(load.path), load.model);
    nibble::session session(model);
    std::ofstream out(out_path, std::ios::binary);
    session.append(tokens, [&](std::size_t, std::span<const float> logits) {
      out.write(reinterpret_cast<const char*>(logits.data()),
                static_cast<std::streamsize>(logits.size_bytes()));
    });
    out.close();
    if (!out) throw nibble::error(nibble::errc::io, "cannot be written.", {.file = out_path});
  });
}

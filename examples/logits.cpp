// nibble-logits: the logits of every position of a token sequence, as raw floats.

#include "common.hpp"

namespace {

std::vector<nibble::token> read_tokens(const std::string& path) {
  common::text_input in(path);
  auto tokens = common::read_tokens(in);
  if (tokens.empty()) in.fail(nibble::errc::invalid_argument, "holds no token ids.");
  return tokens;
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{
      "Writes the logits of every position: raw little-endian float32 [n_tokens, n_vocab]."};
  common::load_options load;
  // what is compared with references should not be rounded on the way
  load.set_kv(nibble::kv_type::f32);
  load.add_to(app);
  std::string tokens_path, out_path;
  app.add_option("tokens", tokens_path, "file with token ids between white space")->required();
  app.add_option("out", out_path, "file to write")->required()->check(common::is_output);
  if (const auto status = common::parse(app, argc, argv)) return *status;

  return common::run([&] {
    const auto tokens = read_tokens(tokens_path);
    load.model.plan.all_logits = true;
    if (load.model.plan.context == 0) {
      load.model.plan.context = static_cast<std::int32_t>(tokens.size());
    }
    const nibble::gguf::file file(load.path);
    auto inputs = file.paths();
    inputs.emplace_back(tokens_path);
    common::output out(out_path, inputs);
    const nibble::model model(file, load.model);
    if (model.plan().context > model.hparams().n_ctx_train) {
      for (const std::string& reason : model.plan().reasons) std::cerr << reason << '\n';
    }
    nibble::session session(model);
    session.append(tokens, [&](std::size_t, std::span<const float> logits) {
      out.stream().write(reinterpret_cast<const char*>(logits.data()),
                         static_cast<std::streamsize>(logits.size_bytes()));
      common::finish(out.stream(), out_path);  // not after minutes of work that is lost
    });
    out.finish();
  });
}

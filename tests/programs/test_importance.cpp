// What importance matrices are for: made from one text, they lower the divergence on another.

#include <nibble/quantise/imatrix.hpp>
#include <nlohmann/json.hpp>

#include "process.hpp"

namespace {

using strings = std::vector<std::string>;

// The two halves of the held-out text, between lines.
std::pair<std::string, std::string> halves() {
  const std::string all =
      test::read_file(std::filesystem::path(NIBBLE_SOURCE_DIR) / "examples/models/heldout.txt");
  const std::size_t middle = all.find('\n', all.size() / 2) + 1;
  return {all.substr(0, middle), all.substr(middle)};
}

struct divergence {
  double mean, error;
};

divergence measured(const std::string& made, const std::string& original, const std::string& text) {
  const test::temporary_folder folder;
  const std::string json = (folder / "json").string();
  test::run_well("perplexity",
                 {made, "--against", original, "--text", text, "--chunk", "256", "--chunks", "8",
                  "--warm-up", "0", "-t", "1", "--activations", "float", "--json", json});
  const auto found = nlohmann::json::parse(test::read_file(json))["comparison"];
  return {found["kl_mean"], found["kl_error"]};
}

}  // namespace

TEST_CASE("importance: a matrix from one text lowers the divergence on another") {
  const auto original = test::data("models/stories260K-x256-f32.gguf");
  if (!original) return;
  const test::temporary_folder folder;
  const auto [first, second] = halves();
  const std::string learnt = test::write_file(folder / "learnt", first).string();
  const std::string other = test::write_file(folder / "other", second).string();
  const std::string matrix = (folder / "matrix").string();
  test::run_well("imatrix", {original->string(), "--text", learnt, "--chunk", "256", "--chunks",
                             "20", "-t", "1", "-o", matrix});
  for (const std::string type : {"q2_k", "q3_k_m"}) {
    const auto quantised = [&](strings more) {
      const std::string out = (folder / (type + ".gguf")).string();
      more.insert(more.begin(), {original->string(), out, type});
      test::run_well("quantize", more);
      return measured(out, original->string(), other);
    };
    const divergence plain = quantised({}), weighted = quantised({"--imatrix", matrix});
    INFO(type << ": " << plain.mean << " +- " << plain.error << " without, " << weighted.mean
              << " +- " << weighted.error << " with importance");
    CHECK(weighted.mean + 2 * weighted.error < plain.mean - 2 * plain.error);
  }
}

TEST_CASE("importance: a matrix of another model, or of zeros, is not used") {
  const test::temporary_folder folder;
  const std::string model = test::tales.string(), out = (folder / "out.gguf").string();
  const std::string path = (folder / "matrix").string();
  const auto zeros = [](float value) {
    return nibble::importance{std::vector<float>(256, value), {1.0f}};
  };
  nibble::imatrix m;
  m.tensors["blk.0.attn_q.weight"] = zeros(0);
  nibble::write_imatrix(m, path);
  const strings words{model, out, "q4_0", "--imatrix", path};
  test::check_refused(test::run("quantize", words), {path, "are 0"}, 1);
  // one that says something is used, the other not
  m.tensors["blk.0.attn_k.weight"] = zeros(1);
  nibble::write_imatrix(m, path);
  const std::string text = test::run_well("quantize", words);
  CHECK(test::contains(text, "1 weighted by importance"));
  CHECK(test::contains(text, "all 0, as if there was none: blk.0.attn_q.weight\n"));
  m.tensors["blk.0.attn_q.weight"] = {std::vector<float>(256, 1.0f), {0.0f}};  // of no token
  nibble::write_imatrix(m, path);
  CHECK(test::contains(test::run_well("quantize", words), "1 weighted by importance"));
  std::filesystem::remove(out);
  // a model is stated
  m.model = "0123456789abcdef";
  nibble::write_imatrix(m, path);
  test::check_refused(test::run("quantize", words), {path, "another model"}, 1);
  m.model = nibble::model_fingerprint(nibble::gguf::file(model));
  nibble::write_imatrix(m, path);
  test::run_well("quantize", words);
}

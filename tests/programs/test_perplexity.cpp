// nibble-perplexity: its figures beside reference logits and the shipped model's card, and what it
// refuses.

#include <chrono>
#include <cmath>
#include <csignal>
#include <cstring>
#include <nibble/gguf/writer.hpp>
#include <nlohmann/json.hpp>
#include <thread>

#include "process.hpp"

namespace {

using nlohmann::json;
using strings = std::vector<std::string>;

const std::string model = test::tales.string();
const std::string heldout =
    (std::filesystem::path(NIBBLE_SOURCE_DIR) / "examples/models/heldout.txt").string();

json measured(strings words) {
  const test::temporary_folder folder;
  const std::string path = (folder / "out.json").string();
  for (const char* word : {"--json", path.c_str(), "-t", "1"}) words.emplace_back(word);
  const std::string text = test::run_well("perplexity", words);
  CHECK(test::contains(text, "perplexity"));
  return json::parse(test::read_file(path));
}

using rows = std::vector<std::vector<double>>;

// ln of the probabilities that the reference logits of this file give.
rows reference_logs(const std::filesystem::path& path) {
  constexpr std::size_t n_vocab = 512;
  const std::string bytes = test::read_file(path);
  std::vector<float> logits(bytes.size() / sizeof(float));
  std::memcpy(logits.data(), bytes.data(), bytes.size());
  rows out;
  for (std::size_t at = 0; at < logits.size(); at += n_vocab) {
    std::vector<double> row(logits.begin() + static_cast<std::ptrdiff_t>(at),
                            logits.begin() + static_cast<std::ptrdiff_t>(at + n_vocab));
    double sum = 0;
    for (const double x : row) sum += std::exp(x);
    for (double& x : row) x -= std::log(sum);
    out.push_back(row);
  }
  return out;
}

bool near(const json& found, double expected, double relative) {
  INFO(found << " where " << expected << " was expected");
  const bool good = std::abs(found.get<double>() - expected) <= relative * std::abs(expected);
  CHECK(good);
  return good;
}

}  // namespace

TEST_CASE("perplexity: the model card's figures for the held-out text") {
  // 3 documents rather than 130, so that it is quick
  const auto some = measured({model, "--activations", "float", "--kv", "f32", "--chunks", "3"});
  CHECK(some["chunks"] == 3);
  CHECK(some["text"].get<std::string>().ends_with("share/nibble/heldout.txt"));
  const strings own{model,           "--activations",   "float",  "--kv",
                    "f32",           "--chunks",        "3",      "--documents",
                    "<|endoftext|>", "--parse-special", "--text", heldout};
  CHECK(measured(own)["model"]["nats"] == some["model"]["nats"]);
  CHECK(some["model"]["nats"].get<double>() > 0.25);
  CHECK(some["model"]["nats"].get<double>() < 0.40);
  near(some["model"]["perplexity"], std::exp(some["model"]["nats"].get<double>()), 1e-9);
  CHECK(!some.contains("comparison"));
}

TEST_CASE("perplexity: bits a byte count the text's bytes") {
  const test::temporary_folder folder;
  const std::string text = "The old cat slept on the wall. Then a girl came along and smiled.";
  const std::string path = test::write_file(folder / "text", text).string();
  const auto found = measured({model, "--text", path, "--documents", "%%"});
  near(found["model"]["bits_per_byte"],
       found["model"]["nats"].get<double>() * found["tokens"].get<double>() / std::log(2.0) /
           static_cast<double>(text.size()),
       1e-9);
}

TEST_CASE("perplexity: divergence from an f32 file, beside reference logits") {
  const auto folder = test::data("golden/trained");
  if (!folder) return;
  for (const std::string name : {"q4_0", "q8_0", "lc-q2_k"}) {
    INFO(name);
    const std::string base = "stories260K-x256-";
    const rows q = reference_logs(*folder / (base + name + ".logits"));
    const rows p = reference_logs(*folder / (base + "f32.logits"));
    const auto tokens_path = *folder / (base + "f32.tokens");
    std::ifstream in(tokens_path);
    std::vector<std::size_t> tokens;
    for (std::size_t id = 0; in >> id;) tokens.push_back(id);
    REQUIRE(tokens.size() == q.size());
    double nats = 0, reference = 0, divergence = 0, greatest = 0, same = 0;
    for (std::size_t t = 0; t + 1 < tokens.size(); ++t) {
      nats -= q[t][tokens[t + 1]];
      reference -= p[t][tokens[t + 1]];
      double one = 0;
      for (std::size_t i = 0; i < p[t].size(); ++i) one += std::exp(p[t][i]) * (p[t][i] - q[t][i]);
      divergence += one;
      greatest = std::max(greatest, one);
      same += std::max_element(p[t].begin(), p[t].end()) - p[t].begin() ==
              std::max_element(q[t].begin(), q[t].end()) - q[t].begin();
    }
    const auto n = static_cast<double>(tokens.size() - 1);
    const auto models = *test::data("models");
    const auto found =
        measured({(models / (base + name + ".gguf")).string(), "--against",
                  (models / (base + "f32.gguf")).string(), "--tokens", tokens_path.string(),
                  "--chunk", "64", "--warm-up", "0", "--activations", "float", "--kv", "f32"});
    CHECK(found["tokens"] == tokens.size() - 1);
    // the logits agree to 1e-6 or so
    near(found["model"]["nats"], nats / n, 1e-5);
    near(found["reference"]["nats"], reference / n, 1e-5);
    near(found["comparison"]["kl_mean"], divergence / n, 1e-3);
    near(found["comparison"]["kl_max"], greatest, 1e-3);
    near(found["comparison"]["perplexity_ratio"], std::exp((nats - reference) / n), 1e-5);
    near(found["comparison"]["same_top"], same / n, 1e-9);
  }
}

TEST_CASE("perplexity: a model beside itself, and beside itself with other settings") {
  const strings base{model, "--chunks", "2", "--chunk", "48"};
  const auto with = [&](const strings& more) {
    strings all = base;
    all.insert(all.end(), more.begin(), more.end());
    return measured(all);
  };
  const auto same = with({"--against", model});
  CHECK(same["comparison"]["kl_max"] == 0);
  CHECK(same["comparison"]["same_top"] == 1);
  CHECK(same["comparison"]["perplexity_ratio"] == 1);
  CHECK(same["model"]["nats"] == same["reference"]["nats"]);

  const auto rounded = with({"--against-activations", "float"});
  CHECK(rounded["model"]["activations"] == "int8");
  CHECK(rounded["reference"]["activations"] == "float");
  CHECK(rounded["comparison"]["kl_mean"].get<double>() > 1e-7);
  CHECK(rounded["comparison"]["kl_mean"].get<double>() < 1e-3);

  const auto cache = with({"--kv", "f16,f16", "--kl-against", "f32", "--activations", "float"});
  CHECK(cache["reference"]["key"] == "f32");
  CHECK(cache["model"]["value"] == "f16");
  CHECK(cache["comparison"]["kl_mean"].get<double>() > 0);
  CHECK(cache["comparison"]["kl_mean"].get<double>() < 1e-5);
  double before = 0;
  for (const char* key : {"kl_median", "kl_90", "kl_95", "kl_99", "kl_99_9", "kl_max"}) {
    CHECK(cache["comparison"][key].get<double>() >= before);
    before = cache["comparison"][key];
  }
}

TEST_CASE("perplexity: how a text is cut") {
  const test::temporary_folder folder;
  std::string ids;
  for (int i = 0; i < 50; ++i) ids += std::to_string(100 + i) + ' ';
  const std::string path = test::write_file(folder / "ids", ids).string();
  const auto tokens = [&](const strings& more) {
    strings all{model, "--tokens", path};
    all.insert(all.end(), more.begin(), more.end());
    const auto found = measured(all);
    return std::pair(found["chunks"].get<int>(), found["tokens"].get<int>());
  };
  CHECK(tokens({"--chunk", "50"}) == std::pair(1, 24));  // 26 to 49
  CHECK(tokens({"--chunk", "20"}) == std::pair(2, 18));
  CHECK(tokens({"--chunk", "20", "--warm-up", "0"}) == std::pair(2, 38));
  CHECK(tokens({"--chunk", "20", "--warm-up", "18"}) == std::pair(2, 2));
  CHECK(tokens({"--chunk", "20", "--stride", "5"}) == std::pair(7, 35));
  CHECK(tokens({"--chunk", "20", "--stride", "20"}) == std::pair(2, 18));
  CHECK(tokens({"--chunk", "20", "--chunks", "1"}) == std::pair(1, 9));
  CHECK(tokens({"--chunk", "2"}) == std::pair(25, 25));
  CHECK(tokens({"--chunk", "3"}) == std::pair(16, 16));
  CHECK(tokens({"--chunk", "20", "--batch", "3"}) == std::pair(2, 18));
  // what is predicted from how much does not depend on the batches
  const auto nats = [&](const char* batch) {
    return measured({model, "--tokens", path, "--chunk", "20", "--batch", batch})["model"]["nats"];
  };
  near(nats("3"), nats("512").get<double>(), 1e-5);
}

TEST_CASE("perplexity: a text, from a file and from the standard input, begins like one") {
  const test::temporary_folder folder;
  std::string text;
  for (int i = 0; i < 30; ++i) text += "Once upon a time, there lived a boy named Ben. ";
  const std::string path = test::write_file(folder / "text", text).string();
  const std::string found = test::run_well(
      "perplexity", {model, "--text", path, "--chunk", "32", "-t", "1", "--chunks", "2"});
  CHECK(test::contains(found, path + ": 2 chunks of 32 tokens, 30 tokens predicted"));
  const std::string read = test::run_well(
      "perplexity", {model, "--text", "-", "--chunk", "32", "-t", "1", "--chunks", "2"}, text);
  CHECK(test::contains(read, "standard input: 2 chunks"));
  CHECK(read.substr(read.find("nats")) == found.substr(found.find("nats")));

  // the same as tokens, the second chunk begun like the first
  std::string ids = test::run_well("tokenize", {model}, text);
  std::istringstream words(ids);
  std::string first, cut;
  words >> first;
  for (int i = 0; i < 64; ++i) {
    std::string word = first;
    if (i != 0) words >> word;
    cut += (i == 32 ? first : word) + ' ';
  }
  const std::string as_tokens = test::run_well(
      "perplexity", {model, "--tokens", test::write_file(folder / "ids", cut).string(), "--chunk",
                     "32", "-t", "1"});
  CHECK(as_tokens.substr(as_tokens.find("nats")) == found.substr(found.find("nats")));
}

TEST_CASE("perplexity: what cannot be measured is refused") {
  const test::temporary_folder folder;
  const auto refused = [&](strings words, std::initializer_list<std::string_view> parts,
                           std::string_view input = "") {
    words.insert(words.begin(), model);
    test::check_refused(test::run("perplexity", words, input), parts, 1);
  };
  const std::string missing = (folder / "missing").string();
  const std::string few = test::write_file(folder / "few", "Once upon a time").string();
  const std::string none = test::write_file(folder / "none", "").string();
  const std::string ids = test::write_file(folder / "ids", "1 2 3 999999").string();
  refused({"--text", missing}, {missing, "cannot be opened"});
  refused({"--text", folder.path().string()}, {folder.path().string(), "cannot be read"});
  refused({"--text", few}, {few, "tokens, less than a chunk of 512", "--chunk"});
  refused({"--text", "-"}, {"standard input", "holds 1 token,"});
  refused({"--text", none, "--documents", "%%"}, {none, "no document"});
  refused({"--tokens", ids}, {ids, "999999", "vocabulary"});
  refused({"--tokens", few}, {few, "'Once'", "not a token id"});
  refused({"--json", model}, {model, "is an input"});
  refused({"--against", missing}, {missing});
  const auto wrong = [&](strings words, std::initializer_list<std::string_view> parts) {
    words.insert(words.begin(), model);
    test::check_refused(test::run("perplexity", words), parts, 2);
  };
  wrong({"--chunk", "20", "--warm-up", "19"}, {"error: --warm-up 19", "at most 18"});
  wrong({"--warm-up", "512"}, {"error: --warm-up 512", "at most 510"});
  wrong({"--chunk", "20", "--stride", "21"}, {"error: --stride 21", "at most 20"});
  wrong({"--stride", "513"}, {"error: --stride 513", "chunks of 512"});
  wrong({"--kv", "f16,q9"}, {"--kv", "'q9'", "f32"});
  wrong({"--kl-against", ","}, {"--against-kv", "types are f32, f16"});
  wrong({"--chunk", "1"}, {"--chunk", "1"});
  wrong({"--text", few, "--tokens", ids}, {"--text", "--tokens"});
  wrong({"--text", ""}, {"--text", "empty"});
}

TEST_CASE("perplexity: a signal ends it with a sentence, and leaves no results") {
  for (const int signal : {SIGINT, SIGTERM}) {
    const test::temporary_folder folder;
    const std::string json = (folder / "out").string();
    test::process running(
        "perplexity",
        {model, "--chunk", "512", "--against-activations", "float", "-t", "1", "--json", json},
        "/dev/null");
    // until the models are loaded
    for (int i = 0; i < 6000 && !test::contains(running.output(), "predicted"); ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    running.send(signal);
    const auto found = running.wait();
    INFO(found.err);
    CHECK(found.status == -signal);
    CHECK(test::contains(found.err, "interrupted after "));
    CHECK(test::contains(found.err, "no results were written"));
    CHECK(names_in(folder).empty());
  }
}

TEST_CASE("perplexity: models of different vocabularies are not compared") {
  const test::temporary_folder folder;
  // the shipped model with a token renamed that no merge needs
  const nibble::gguf::file file{test::tales};
  nibble::gguf::writer w;
  w.copy_metadata(file);
  const auto found = *file.get_array<std::string_view>("tokenizer.ggml.tokens");
  std::vector<std::string> names(found.begin(), found.end());
  names[1] = "another\x1b";
  w.set_array("tokenizer.ggml.tokens", std::span<const std::string>(names));
  for (const auto& t : file.tensors()) {
    w.add_tensor(t.name, t.view.format, t.view.shape, std::span(t.view.data, t.bytes));
  }
  const std::string other = (folder / "other.gguf").string();
  w.write(other);
  test::check_refused(test::run("perplexity", {model, "--against", other}),
                      {other, "token 1 is", "'another\\x1b'", "one vocabulary"}, 1);
  const auto stories = test::data("models/stories260K-f32.gguf");
  if (!stories) return;
  test::check_refused(test::run("perplexity", {model, "--against", stories->string()}),
                      {"has 512 tokens, the other 2048"}, 1);
}

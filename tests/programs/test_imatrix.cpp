// nibble-imatrix: its sums beside the definition, on the shipped model and on experts; and that
// nothing is lost on the way.

#include <chrono>
#include <cmath>
#include <csignal>
#include <nibble/formats/decode.hpp>
#include <nibble/gguf/writer.hpp>
#include <nibble/quantise/imatrix.hpp>
#include <nibble/tensor/view.hpp>
#include <nlohmann/json.hpp>
#include <numeric>
#include <set>
#include <sstream>
#include <thread>

#include "process.hpp"

namespace {

using strings = std::vector<std::string>;

const std::string model = test::tales.string();

std::string some_text(int sentences) {
  std::string text;
  for (int i = 0; i < sentences; ++i) {
    text += i % 2 == 0 ? "Once upon a time, there lived a boy named Ben. "
                       : "The old cat slept on the wall and dreamed of a fish. ";
  }
  return text;
}

strings with_model(strings more) {
  more.insert(more.begin(), model);
  return more;
}

std::vector<float> decoded(const nibble::gguf::file& file, const char* name) {
  const auto* tensor = file.find_tensor(name);
  REQUIRE(tensor != nullptr);
  std::vector<float> out(tensor->view.shape.elements());
  const std::size_t columns = tensor->view.shape.columns();
  const std::size_t bytes = nibble::row_bytes(tensor->view.format, columns);
  for (std::size_t row = 0; row * columns < out.size(); ++row) {
    nibble::decode_row(tensor->view.format, tensor->view.data + row * bytes, columns,
                       out.data() + row * columns);
  }
  return out;
}

// Sums of squares of the first layer's inputs: embeddings, normalised.
std::vector<double> first_inputs(const std::vector<std::size_t>& tokens) {
  const nibble::gguf::file file{test::tales};
  const auto table = decoded(file, "token_embd.weight");
  const auto gain = decoded(file, "blk.0.attn_norm.weight");
  const double epsilon = file.require<float>("llama.attention.layer_norm_rms_epsilon");
  const std::size_t n = gain.size();
  std::vector<double> sums(n);
  for (const std::size_t id : tokens) {
    const float* const x = table.data() + id * n;
    double squares = 0;
    for (std::size_t i = 0; i < n; ++i) squares += static_cast<double>(x[i]) * x[i];
    const double factor = 1 / (squares / static_cast<double>(n) + epsilon);
    for (std::size_t i = 0; i < n; ++i) {
      sums[i] += static_cast<double>(x[i]) * x[i] * gain[i] * gain[i] * factor;
    }
  }
  return sums;
}

void check_near(const std::vector<float>& found, const std::vector<float>& expected) {
  REQUIRE(found.size() == expected.size());
  float most = 0, scale = 0;
  for (std::size_t i = 0; i < found.size(); ++i) {
    most = std::max(most, std::abs(found[i] - expected[i]));
    scale = std::max(scale, expected[i]);
  }
  CHECK(most <= 1e-5f * scale);
}

}  // namespace

TEST_CASE("imatrix: sums of squares by column, the same for any number of threads") {
  const test::temporary_folder folder;
  const std::string text = test::write_file(folder / "text", some_text(5)).string();
  const std::string out = (folder / "out.gguf").string(), json = (folder / "out.json").string();
  const strings base{"--text", text, "--chunk", "24", "--chunks", "2", "-o"};
  const auto words = [&](const std::string& path, const strings& more) {
    strings all = with_model(base);
    all.push_back(path);
    all.insert(all.end(), more.begin(), more.end());
    return all;
  };
  const std::string shown = test::run_well("imatrix", words(out, {"-t", "1", "--json", json}));
  const auto found = nibble::read_imatrix(out);
  CHECK(found.chunk_count == 2);
  CHECK(found.chunk_size == 24);
  CHECK(found.datasets == strings{text});
  CHECK(found.tensors.size() == 29);  // 4 layers of 7 matrices, and the output
  for (const auto& [name, importance] : found.tensors) {
    INFO(name);
    CHECK(test::contains(shown, name));
    CHECK(importance.counts == std::vector<float>{48});
  }
  // both chunks, each begun with the token that begins a text
  std::istringstream ids(test::run_well("tokenize", {model}, some_text(5)));
  std::vector<std::size_t> tokens;
  for (std::size_t id = 0; ids >> id && tokens.size() < 48;) tokens.push_back(id);
  tokens[24] = tokens[0];
  const auto expected = first_inputs(tokens);
  for (const char* name : {"blk.0.attn_q.weight", "blk.0.attn_k.weight", "blk.0.attn_v.weight"}) {
    check_near(found.tensors.find(name)->second.in_sum2, {expected.begin(), expected.end()});
  }
  const auto summary = nlohmann::json::parse(test::read_file(json));
  CHECK(summary["tensors"].size() == 29);
  CHECK(summary["chunks"] == 2);
  CHECK(summary["tensors"][0]["top_share"].get<double>() > 0.005);
  CHECK(summary["tensors"][0]["top_share"].get<double>() < 1);

  const std::string other = (folder / "other.gguf").string();
  test::run_well("imatrix", words(other, {"-t", "3"}));
  CHECK(test::read_file(other) == test::read_file(out));
}

TEST_CASE("imatrix: experts are told apart") {
  const auto moe = test::data("golden/archs/llama-moe.gguf");
  if (!moe) return;
  const test::temporary_folder folder;
  const std::string tokens = test::data("golden/archs/llama-moe.tokens")->string();
  const std::string out = (folder / "out.gguf").string();
  test::run_well("imatrix", {moe->string(), "--tokens", tokens, "--chunk", "40", "-o", out});
  const auto found = nibble::read_imatrix(out);
  const nibble::gguf::file file{*moe};
  const auto used = file.require<std::uint32_t>("llama.expert_used_count");
  const auto experts = file.require<std::uint32_t>("llama.expert_count");
  const auto& gate = found.tensors.find("blk.0.ffn_gate_exps.weight")->second;
  const auto& router = found.tensors.find("blk.0.ffn_gate_inp.weight")->second;
  const auto& down = found.tensors.find("blk.0.ffn_down_exps.weight")->second;
  CHECK(router.counts == std::vector<float>{80});
  REQUIRE(gate.counts.size() == experts);
  CHECK(gate.counts == down.counts);
  CHECK(std::accumulate(gate.counts.begin(), gate.counts.end(), 0.0f) ==
        80.0f * static_cast<float>(used));
  // the router sees each token once, the experts see it `used` times between them
  std::vector<float> sums(router.in_sum2.size()), expected = router.in_sum2;
  for (std::size_t i = 0; i < gate.in_sum2.size(); ++i) sums[i % sums.size()] += gate.in_sum2[i];
  for (float& x : expected) x *= static_cast<float>(used);
  check_near(sums, expected);
  for (std::size_t e = 0; e < experts; ++e) {
    const auto begin =
        down.in_sum2.begin() + static_cast<std::ptrdiff_t>(e * down.in_sum2.size() / experts);
    const float sum = std::accumulate(
        begin, begin + static_cast<std::ptrdiff_t>(down.in_sum2.size() / experts), 0.0f);
    CHECK((sum > 0) == (down.counts[e] > 0));
  }
}

TEST_CASE("imatrix: earlier sums are added to, and work is resumed") {
  const test::temporary_folder folder;
  const std::string text = test::write_file(folder / "text", some_text(6)).string();
  const auto run = [&](const std::string& out, const strings& more) {
    strings all =
        with_model({"--text", text, "--chunk", "20", "-t", "1", "-o", (folder / out).string()});
    all.insert(all.end(), more.begin(), more.end());
    test::run_well("imatrix", all);
    return nibble::read_imatrix(folder / out);
  };
  const auto whole = run("whole", {"--chunks", "3"});
  run("parts", {"--chunks", "2"});
  const auto same = [&](const nibble::imatrix& found) {
    CHECK(found.chunk_count == 3);
    CHECK(found.datasets == whole.datasets);
    REQUIRE(found.tensors.size() == whole.tensors.size());
    for (const auto& [name, expected] : whole.tensors) {
      INFO(name);
      CHECK(found.tensors.find(name)->second.counts == expected.counts);
      check_near(found.tensors.find(name)->second.in_sum2, expected.in_sum2);
    }
  };
  same(run("sum", {"--from", (folder / "parts").string(), "--skip", "2", "--chunks", "1"}));
  same(run("parts", {"--resume", "--chunks", "3"}));  // in all
  same(run("new", {"--resume", "--chunks", "3", "--save-every", "2"}));
  // nothing is left to do
  const std::string before = test::read_file(folder / "new");
  same(run("new", {"--resume", "--chunks", "3"}));
  same(run("new", {"--resume", "--chunks", "2"}));
  CHECK(test::read_file(folder / "new") == before);
}

TEST_CASE("imatrix: work that was cut in another way is not resumed") {
  const test::temporary_folder folder;
  const std::string text = test::write_file(folder / "text", some_text(6)).string();
  const auto words = [&](const std::string& out, const strings& more) {
    strings all = with_model({"--text", text, "-t", "1", "-o", (folder / out).string()});
    all.insert(all.end(), more.begin(), more.end());
    return all;
  };
  const auto made = [&](const std::string& out, const strings& more) {
    test::run_well("imatrix", words(out, more));
    return test::read_file(folder / out);
  };
  const std::string chunks = made("chunks", {"--chunk", "20", "--chunks", "2"});
  const std::string documents = made("documents", {"--documents", "Ben", "--chunks", "2"});
  const auto refused = [&](const std::string& out, strings more,
                           std::initializer_list<std::string_view> parts) {
    more.emplace_back("--resume");
    test::check_refused(test::run("imatrix", words(out, more)), parts, 1);
  };
  refused("chunks", {"--chunk", "24"}, {"chunks", "20 tokens", "not of 24", "--chunk", "--from"});
  refused("chunks", {"--documents", "Ben"}, {text, "documents between 'Ben'"});
  refused("documents", {"--chunk", "20"}, {"documents between 'Ben'", "not from '" + text + "'"});
  refused("documents", {"--documents", "Ben", "--chunk", "9"}, {"at most 512", "at most 9"});
  refused("documents", {"--documents", "wall"}, {"'Ben'", "'wall'"});
  CHECK(test::read_file(folder / "chunks") == chunks);
  CHECK(test::read_file(folder / "documents") == documents);
  made("documents", {"--documents", "Ben", "--chunks", "3", "--resume"});
  CHECK(nibble::read_imatrix(folder / "documents").chunk_count == 3);
}

TEST_CASE("imatrix: a name that is no UTF-8 is written as UTF-8") {
  const test::temporary_folder folder;
  const auto text = folder / "caf\xe9";
  if (!std::ofstream(text)) return;  // a file system with Unicode names only
  test::write_file(text, some_text(4));
  const std::string out = (folder / "out").string();
  const auto words = [&](const char* chunks) {
    return with_model({"--text", text.string(), "--chunk", "20", "--chunks", chunks, "-o", out,
                       "--resume", "-t", "1"});
  };
  test::run_well("imatrix", words("1"));
  CHECK(nibble::read_imatrix(out).datasets == strings{(folder / "caf\\xe9").string()});
  test::run_well("imatrix", words("2"));
  CHECK(nibble::read_imatrix(out).chunk_count == 2);
}

TEST_CASE("imatrix: what cannot be done is refused, and leaves nothing") {
  const test::temporary_folder folder;
  const std::string out = (folder / "out").string();
  const std::string text = test::write_file(folder / "text", some_text(4)).string();
  const auto refused = [&](const strings& words, std::initializer_list<std::string_view> parts) {
    test::check_refused(test::run("imatrix", with_model(words)), parts, 1);
  };
  test::check_refused(test::run("imatrix", {model, "-o", out}), {"no text is given", "--text"}, 2);
  refused({"-o", out, "--text", text}, {text, "less than a chunk of 512"});
  refused({"-o", out, "--text", (folder / "missing").string()}, {"missing", "cannot be opened"});
  refused({"-o", out, "--text", text, "--chunk", "20", "--skip", "50"}, {"nothing is left"});
  refused({"-o", text, "--text", text}, {text, "is an input"});
  refused({"-o", model, "--text", text}, {model, "is an input"});
  const std::string nowhere = (folder / "no-such-folder" / "out").string();
  refused({"-o", nowhere, "--text", text}, {nowhere, "cannot be opened"});
  refused({"-o", out, "--text", text, "--from", text}, {text});
  // the importance of a model of another shape
  nibble::imatrix other;
  other.tensors["blk.0.attn_q.weight"] = {{1, 2, 3}, {1}};
  nibble::write_imatrix(other, folder / "other");
  refused({"-o", out, "--text", text, "--chunk", "20", "--chunks", "1", "--from",
           (folder / "other").string()},
          {"blk.0.attn_q.weight", "3 numbers", "needs 256", "another model"});
  refused({"-o", (folder / "other").string(), "--text", text, "--resume"}, {"other", "--from"});
  CHECK(names_in(folder) == std::set<std::string>{"other", "text"});
  test::check_refused(test::run("imatrix", {model, "--text", text}), {"--out"}, 2);
}

namespace {

// A run on a long text that a signal ends once ready() holds.
template <typename Ready>
test::outcome interrupted(const test::temporary_folder& folder, int signal, const strings& more,
                          const Ready& ready) {
  const std::string text = test::write_file(folder / "text", some_text(4000)).string();
  strings words = with_model({"--text", text, "-o", (folder / "out").string(), "-t", "1"});
  words.insert(words.end(), more.begin(), more.end());
  test::process running("imatrix", words, "/dev/null");
  for (int i = 0; i < 6000 && !ready(); ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  CHECK(ready());
  running.send(signal);
  return running.wait();
}

}  // namespace

TEST_CASE("imatrix: an interrupt leaves nothing under the name, and says so") {
  for (const int signal : {SIGINT, SIGTERM}) {
    const test::temporary_folder folder;
    const auto begun = [&] { return names_in(folder).size() == 2; };  // the temporary file
    const auto found = interrupted(folder, signal, {}, begun);
    CHECK(found.status == -signal);
    INFO(found.err);
    CHECK(test::contains(found.err, "interrupted "));
    CHECK(test::contains(found.err, "nothing was written"));
    CHECK(names_in(folder) == std::set<std::string>{"text"});
  }
}

TEST_CASE("imatrix: an interrupt leaves what was there, also behind a link") {
  const test::temporary_folder folder;
  const auto begun = [&] { return names_in(folder).size() == 4; };
  test::write_file(folder / "before", "before");
  std::filesystem::create_symlink("nowhere", folder / "out");
  CHECK(interrupted(folder, SIGINT, {}, begun).status == -SIGINT);
  CHECK(names_in(folder) == std::set<std::string>{"before", "out", "text"});
  std::filesystem::remove(folder / "out");
  std::filesystem::create_symlink("before", folder / "out");
  const auto found = interrupted(folder, SIGTERM, {}, begun);
  CHECK(found.status == -SIGTERM);
  INFO(found.err);
  CHECK(test::contains(found.err, "out' stays as it was"));
  CHECK(test::read_file(folder / "before") == "before");
  CHECK(names_in(folder) == std::set<std::string>{"before", "out", "text"});
  CHECK(std::filesystem::is_symlink(folder / "out"));
}

TEST_CASE("imatrix: an interrupt leaves what was saved, and the work is resumed") {
  const test::temporary_folder folder;
  const auto saved = [&] { return std::filesystem::exists(folder / "out"); };
  const auto found = interrupted(folder, SIGINT, {"--save-every", "1", "--chunk", "20"}, saved);
  CHECK(found.status == -SIGINT);
  CHECK(names_in(folder) == std::set<std::string>{"out", "text"});
  const auto kept = nibble::read_imatrix(folder / "out");
  REQUIRE(kept.chunk_count > 0);
  INFO(found.err);
  CHECK(test::contains(found.err, "out' holds " + std::to_string(kept.chunk_count) + ", after"));
  const std::string more = std::to_string(kept.chunk_count + 1);
  test::run_well("imatrix",
                 with_model({"--text", (folder / "text").string(), "-o", (folder / "out").string(),
                             "--chunk", "20", "--chunks", more, "--resume"}));
  CHECK(nibble::read_imatrix(folder / "out").chunk_count == kept.chunk_count + 1);
}

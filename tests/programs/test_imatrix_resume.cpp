// nibble-imatrix --resume and --from: what another model, another text or another cut of it is.

#include <nibble/gguf/writer.hpp>
#include <nibble/quantise/imatrix.hpp>

#include "process.hpp"
#include "synth_file.hpp"

namespace {

using strings = std::vector<std::string>;
using says = std::initializer_list<std::string_view>;

const std::string model = test::tales.string();

std::string some_text(const char* name) {
  std::string text;
  for (int i = 0; i < 12; ++i) {
    text += std::string("Once upon a time, there lived a boy named ") + name + ". <|endoftext|>";
  }
  return text;
}

// A text, and a matrix "out" of its first two chunks.
class made {
 public:
  made() {
    test::write_file(folder / "text", some_text("Ben"));
    run_well({"--chunks", "2"});
    before = test::read_file(folder / "out");
  }

  strings words(strings more) const {
    more.insert(more.begin(), {"--text", (folder / "text").string(), "--chunk", "20", "-o",
                               (folder / "out").string(), "-t", "1"});
    return more;
  }
  strings with(const std::string& of, const strings& more) const {
    strings all = words(more);
    all.insert(all.begin(), of);
    return all;
  }
  void run_well(const strings& more) const { test::run_well("imatrix", with(model, more)); }
  // Refused before the work, and the output is as it was.
  void refused(const std::string& of, const strings& more, says parts) const {
    test::check_refused(test::run("imatrix", with(of, more)), parts, 1);
    CHECK(test::read_file(folder / "out") == before);
  }
  nibble::imatrix found() const { return nibble::read_imatrix(folder / "out"); }

  test::temporary_folder folder;
  std::string before;
};

// The shipped model with other gains in a norm: the same shapes.
std::string another_model(const test::temporary_folder& folder) {
  const nibble::gguf::file file{test::tales};
  nibble::gguf::writer w;
  w.copy_metadata(file);
  std::vector<float> gains(file.find_tensor("blk.0.attn_norm.weight")->view.shape.columns(), 1.0f);
  for (const auto& t : file.tensors()) {
    auto bytes = std::span(t.view.data, t.bytes);
    if (t.name == "blk.0.attn_norm.weight") bytes = std::as_bytes(std::span(gains));
    w.add_tensor(t.name, t.view.format, t.view.shape, bytes);
  }
  const std::string path = (folder / "another.gguf").string();
  w.write(path);
  return path;
}

}  // namespace

TEST_CASE("imatrix: a file of another model is refused, even if nothing is left to do") {
  const made m;
  const std::string other = another_model(m.folder);
  const std::string out = (m.folder / "out").string(), to = (m.folder / "to").string();
  for (const char* chunks : {"1", "2", "3"}) {
    m.refused(other, {"--resume", "--chunks", chunks}, {other, out, "another model"});
  }
  const strings from{
      other,    "--text", (m.folder / "text").string(), "--chunk", "20", "--chunks", "1", "-o", to,
      "--from", out};
  test::check_refused(test::run("imatrix", from), {other, out, "another model"}, 1);
  const test::synth_file narrow({"--arch", "llama", "--n-layer", "1", "--n-embd", "64", "--n-head",
                                 "2", "--n-ff", "128", "--n-vocab", "1000"});
  m.refused(narrow.path(), {"--resume", "--chunks", "3"}, {"blk.0", "another model"});
  CHECK(!std::filesystem::exists(to));
}

TEST_CASE("imatrix: the same model in another format is the same model") {
  const made m;
  const std::string same = (m.folder / "same.gguf").string();
  test::run_well("quantize", {model, same, "q4_0"});
  CHECK(nibble::model_fingerprint(nibble::gguf::file(same)) ==
        nibble::model_fingerprint(nibble::gguf::file(model)));
  test::run_well("imatrix", m.with(same, {"--resume", "--chunks", "3"}));
  CHECK(m.found().chunk_count == 3);
}

TEST_CASE("imatrix: other chunks of a text, or another text of its name, are noticed") {
  const made m;
  const says changed = {"out", "other tokens", "--skip", "--parse-special", "--from"};
  for (const char* chunks : {"2", "3"}) {
    m.refused(model, {"--resume", "--chunks", chunks, "--skip", "1"}, changed);
    m.refused(model, {"--resume", "--chunks", chunks, "--parse-special"}, changed);
  }
  test::write_file(m.folder / "text", some_text("Tom"));
  m.refused(model, {"--resume", "--chunks", "3"}, changed);
  // more at its end is no other text
  test::write_file(m.folder / "text", some_text("Ben") + "The end.");
  m.run_well({"--resume", "--chunks", "3"});
  CHECK(m.found().chunk_count == 3);
}

TEST_CASE("imatrix: one text has one name") {
  const made m;
  strings words = m.with(model, {"--resume", "--chunks", "3"});
  words[2] = (m.folder.path() / "." / "text").string();
  REQUIRE(words[2] != (m.folder / "text").string());
  test::run_well("imatrix", words);
  CHECK(m.found().datasets == strings{(m.folder / "text").string()});
}

TEST_CASE("imatrix: what was added in parts is resumed as if made at once") {
  const made m;
  const test::temporary_folder folder;
  const std::string sum = (folder / "sum").string();
  const auto to_sum = [&](const strings& more) {
    strings words = m.with(model, more);
    *(std::find(words.begin(), words.end(), "-o") + 1) = sum;
    return test::run("imatrix", words);
  };
  const std::string out = (m.folder / "out").string();
  CHECK(to_sum({"--from", out, "--skip", "2", "--chunks", "1"}).status == 0);
  CHECK(to_sum({"--resume", "--chunks", "4"}).status == 0);
  CHECK(nibble::read_imatrix(sum).chunk_count == 4);
  // chunks of which one is missing
  CHECK(to_sum({"--from", out, "--skip", "3", "--chunks", "1"}).status == 0);
  test::check_refused(to_sum({"--resume", "--chunks", "4"}), {"sum", "other tokens"}, 1);
}

TEST_CASE("imatrix: files that state neither model nor tokens are taken, and that is said") {
  const made m;
  nibble::imatrix plain = m.found();
  CHECK(plain.model == nibble::model_fingerprint(nibble::gguf::file(model)));
  CHECK(plain.chunks.size() == 16);
  plain.model = plain.chunks = "";
  nibble::write_imatrix(plain, m.folder / "out");
  const auto found = test::run("imatrix", m.with(model, {"--resume", "--chunks", "3"}));
  CHECK(found.status == 0);
  CHECK(test::contains(found.err, "does not state its model"));
  CHECK(test::contains(found.err, "does not state its tokens"));
  CHECK(m.found().chunk_count == 3);
  CHECK(m.found().model != "");
}

TEST_CASE("imatrix: --help says what must be the same") {
  CHECK(test::contains(test::run_well("imatrix", {"--help"}), "Model, text"));
}

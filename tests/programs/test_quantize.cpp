// nibble-quantize: what it says is what it writes; interrupted, killed or out of room it harms
// nothing.

#include <sys/mount.h>
#include <sys/resource.h>

#include <chrono>
#include <csignal>
#include <nibble/formats/list.hpp>
#include <nibble/gguf/writer.hpp>
#include <nibble/quantise/imatrix.hpp>
#include <nlohmann/json.hpp>
#include <random>
#include <set>
#include <thread>

#include "process.hpp"

namespace {

using strings = std::vector<std::string>;
using test::names_in;
using names = std::set<std::string>;
const std::string model = test::tales.string();

// A model that takes some time to convert: a matrix of zeros, of which the disk holds nothing.
std::string large_file(const test::temporary_folder& folder) {
  const auto path = folder / "in.gguf";
  nibble::gguf::writer w;
  w.add_tensor("token_embd.weight", nibble::id_of<nibble::formats::f32>,
               {{4096, 8192, 1, 1}},  // 128 MiB
               [](const nibble::gguf::byte_sink&) {});
  w.write(path, {.header_only = true});
  std::filesystem::resize_file(path, std::filesystem::file_size(path) + 4096ull * 8192 * 4);
  return path.string();
}

// While it lives, no file that a process writes may become larger.
class file_size_limit {
 public:
  explicit file_size_limit(rlim_t bytes) {
    ::getrlimit(RLIMIT_FSIZE, &before_);
    const rlimit now{bytes, before_.rlim_max};
    ::setrlimit(RLIMIT_FSIZE, &now);
  }
  file_size_limit(const file_size_limit&) = delete;
  file_size_limit& operator=(const file_size_limit&) = delete;
  ~file_size_limit() { ::setrlimit(RLIMIT_FSIZE, &before_); }

 private:
  rlimit before_{};
};

// A file system in memory with little room, where this process may make one.
class small_disk {
 public:
  small_disk(const std::filesystem::path& at, const char* size) : at_(at) {
    std::filesystem::create_directory(at);
    mounted_ = ::mount("tmpfs", at.c_str(), "tmpfs", 0, size) == 0;
  }
  small_disk(const small_disk&) = delete;
  small_disk& operator=(const small_disk&) = delete;
  ~small_disk() {
    if (mounted_) ::umount2(at_.c_str(), MNT_DETACH);
  }
  bool mounted() const { return mounted_; }

 private:
  std::filesystem::path at_;
  bool mounted_ = false;
};

}  // namespace

TEST_CASE("quantize: a dry run says to the byte what is written") {
  const test::temporary_folder folder;
  const std::string out = (folder / "out.gguf").string();
  const auto json_of = [&](const strings& more) {
    strings words{model, out, "q4_0", "--pure", "--json", (folder / "json").string()};
    words.insert(words.end(), more.begin(), more.end());
    const std::string text = test::run_well("quantize", words);
    auto json = nlohmann::json::parse(test::read_file(folder / "json"));
    std::filesystem::remove(folder / "json");
    for (const auto& part : json["parts"]) {
      CHECK(test::contains(text, std::to_string(part["bytes"].get<std::uint64_t>()) + " bytes"));
    }
    CHECK(json.erase("seconds") == 1);
    return json;
  };
  const strings variants[] = {{"-v"},
                              {"-t", "2"},
                              {"--split-max-size", "600KB"},
                              {"--tensor", "*attn_?.weight=q8_0", "--leave", "blk.0.*"},
                              {"--output-type", "F16", "--embedding-type", "q8_0", "-t", "1"}};
  for (const strings& more : variants) {
    strings dry = more;
    dry.push_back("--dry-run");
    const auto planned = json_of(dry);
    CHECK(names_in(folder) == names{});
    const auto done = json_of(more);
    CHECK(planned == done);
    for (const auto& part : done["parts"]) {
      const std::filesystem::path path = part["path"].get<std::string>();
      CHECK(std::filesystem::file_size(path) == part["bytes"]);
    }
    const nibble::gguf::file file(done["parts"][0]["path"].get<std::string>());
    REQUIRE(file.tensors().size() == done["tensors"].size());
    for (const auto& tensor : done["tensors"]) {
      const auto* const found = file.find_tensor(tensor["name"].get<std::string>());
      REQUIRE(found != nullptr);
      CHECK(tensor["bytes_to"] == found->bytes);
      CHECK(tensor["to"] == nibble::format_name(found->view.format));
    }
    const strings words{done["parts"][0]["path"], "Once upon a time", "-n", "4"};
    CHECK(test::run_well("generate", words).size() > 1);
    for (const auto& path : file.paths()) std::filesystem::remove(path);
  }
}

TEST_CASE("quantize: an importance matrix is used, and named in the file") {
  const test::temporary_folder folder;
  nibble::imatrix m;
  const nibble::gguf::file source(model);
  for (const auto& t : source.tensors()) {
    m.tensors.emplace(t.name,
                      nibble::importance{std::vector<float>(t.view.shape.columns(), 2.0f), {2.0f}});
  }
  const std::string path = (folder / "m.imatrix").string(), out = (folder / "out.gguf").string();
  nibble::write_imatrix(m, path);
  const std::string text =
      test::run_well("quantize", {model, out, "q4_0", "--pure", "--imatrix", path});
  CHECK(test::contains(text, "weighted by importance"));
  CHECK(nibble::gguf::file(out).require<std::string_view>("quantize.imatrix.file") == path);
  test::check_refused(test::run("quantize", {model, path, "q4_0", "--imatrix", path}),
                      {path, "is an input"}, 1);
  test::check_refused(test::run("quantize", {model, out, "q4_0", "--imatrix", model}),
                      {model, "'imatrix' was expected"}, 1);
}

TEST_CASE(
    "quantize: an importance matrix that fits in part is told, one that does not is refused") {
  const test::temporary_folder folder;
  const auto write = [&](const std::string& name, const strings& tensors) {
    nibble::imatrix m;
    for (const std::string& t : tensors) {
      m.tensors[t] = {std::vector<float>(256, 1.0f), {1.0f}};
    }
    nibble::write_imatrix(m, folder / name);
    return (folder / name).string();
  };
  const std::string out = (folder / "out.gguf").string(), json = (folder / "json").string();
  const std::string part = write("part", {"blk.0.attn_q.weight", "blk.99.attn_q.weight"});
  const std::string text = test::run_well(
      "quantize", {model, out, "q4_0", "--pure", "--imatrix", part, "-n", "--json", json});
  CHECK(test::contains(text, "1 weighted by importance"));
  CHECK(test::contains(text, "without importance: token_embd.weight, blk.0.attn_k.weight"));
  CHECK(test::contains(text, " more\n"));
  CHECK(test::contains(text, "importance of no tensor here: blk.99.attn_q.weight\n"));
  const auto found = nlohmann::json::parse(test::read_file(json))["importance"];
  CHECK(found["entries"] == 2);
  CHECK(found["unused"] == strings{"blk.99.attn_q.weight"});
  CHECK(found["without"].size() == 28);  // 29 matrices
  const std::string other = write("other", {"blk.98.attn_q.weight", "blk.99.attn_q.weight"});
  for (const strings& more : {strings{"-n"}, strings{}}) {
    strings words{model, out, "q4_0", "--imatrix", other};
    words.insert(words.end(), more.begin(), more.end());
    test::check_refused(test::run("quantize", words),
                        {model, other, "2 tensors", "blk.98.attn_q.weight", "none of these"}, 1);
  }
  CHECK(names_in(folder) == names{"json", "other", "part"});
}

TEST_CASE("quantize: names that are no UTF-8 are written as UTF-8") {
  const test::temporary_folder folder;
  nibble::imatrix m;
  m.tensors["blk.0.attn_q.weight"] = {std::vector<float>(256, 1.0f), {1.0f}};
  m.datasets = {"caf\xe9"};
  const auto path = folder / "m\xff";
  if (!std::ofstream(path)) return;  // a file system with Unicode names only
  nibble::write_imatrix(m, path);
  const std::string out = (folder / "out.gguf").string();
  test::run_well("quantize", {model, out, "q4_0", "--imatrix", path.string()});
  const nibble::gguf::file file(out);
  CHECK(file.require<std::string_view>("quantize.imatrix.file") == (folder / "m\\xff").string());
  CHECK(file.require<std::string_view>("quantize.imatrix.dataset") == "caf\\xe9");
}

TEST_CASE("quantize: a header is enough for a dry run, and for nothing else") {
  const test::temporary_folder folder;
  const nibble::gguf::file whole(model);
  nibble::gguf::writer w;
  w.copy_metadata(whole);
  for (const auto& t : whole.tensors()) {
    w.add_tensor(t.name, t.view.format, t.view.shape, std::span(t.view.data, t.bytes));
  }
  const std::string header = (folder / "in.gguf").string(), out = (folder / "out.gguf").string();
  w.write(header, {.header_only = true});
  CHECK(test::run_well("quantize", {header, out, "q4_k_m", "-n"}) ==
        test::run_well("quantize", {model, out, "q4_k_m", "-n"}));
  test::check_refused(test::run("quantize", {header, out, "q4_k_m"}), {header, "the header only"},
                      1);
  CHECK(names_in(folder) == names{"in.gguf"});
}

TEST_CASE("quantize: what cannot be is refused, and exits with 1 or 2") {
  const test::temporary_folder folder;
  const std::string out = (folder / "out.gguf").string();
  const auto refused = [&](strings more, std::initializer_list<std::string_view> parts,
                           int status) {
    more.insert(more.begin(), model);
    test::check_refused(test::run("quantize", more), parts, status);
  };
  refused({out, "q9_k"}, {"type", "'q9_k'", "q4_k_m"}, 2);
  refused({out}, {"type"}, 2);
  refused({out, "q4_0", "--tensor", "x"}, {"--tensor", "'x'", "PATTERN=FORMAT"}, 2);
  refused({out, "q4_0", "--tensor", "*=q9"}, {"--tensor", "'q9'", "q4_k"}, 2);
  refused({out, "q4_0", "--output-type", "q4_k_m"}, {"--output-type", "'q4_k_m'"}, 2);
  for (const char* size : {"much", "-1", "-1GB", "1.5GB", "99999999999999999999", ""}) {
    refused({out, "q4_0", "--split-max-size", size}, {"--split-max-size", "such as 4GB"}, 2);
  }
  refused({out, "q4_0", "--tensor", "blk.[0=q8_0"}, {"--tensor", "'blk.[0'", "no ] closes"}, 2);
  refused({out, "q4_0", "--tensor", "=q8_0"}, {"--tensor", "PATTERN=FORMAT"}, 2);
  refused({out, "q4_0", "--leave", "["}, {"--leave", "'['", "no ] closes"}, 2);
  refused({out, "q4_0", "--leave", ""}, {"--leave", "empty"}, 2);
  refused({"", "q4_0"}, {"out", "must not be empty"}, 2);
  refused({out, "q4_0", "--tensor", "*nothing*=q8_0"}, {"'*nothing*'", "matches no tensor"}, 1);
  refused({out, "q4_0", "--leave", "nothing"}, {"'nothing'", "matches no tensor"}, 1);
  refused({out, "q4_0", "--threads", "100000"}, {"threads", "100000"}, 2);
  refused({out, "q4_0", "--imatrix", (folder / "none").string()}, {"none"}, 1);
  refused({model, "q4_0"}, {model, "is an input"}, 1);
  refused({folder.path().string(), "q4_0"}, {"no regular file"}, 1);
  refused({out, "q4_0", "--json", out}, {out, "another output"}, 1);
  const std::string part = (folder / "out-00002-of-00004.gguf").string();
  refused({out, "q4_0", "--split-max-size", "600KB", "--json", part}, {part, "another output"}, 1);
  refused({"/dev/null", "q4_0"}, {"/dev/null", "no regular file"}, 1);
  CHECK(names_in(folder) == names{});
}

namespace {

// Until a program has begun to write into the folder, six seconds at most.
void wait_for_more_than(std::size_t count, const std::filesystem::path& folder) {
  for (int n = 0; n < 3000 && names_in(folder).size() <= count; ++n) {
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
}

// How long after that the i-th signal comes; the first at once, before any machine is done.
std::chrono::milliseconds moment(int i, std::mt19937& rng) {
  return std::chrono::milliseconds(i == 0 ? 0 : rng() % 200);
}

}  // namespace

TEST_CASE("quantize: interrupted at random moments, it leaves the input and nothing else") {
  const test::temporary_folder folder;
  const std::string in = large_file(folder), out = (folder / "out.gguf").string();
  const auto changed = std::filesystem::last_write_time(in);
  std::mt19937 rng(7);
  int stopped = 0;
  for (int i = 0; i < 10; ++i) {
    const int signal = i % 2 == 0 ? SIGINT : SIGTERM;
    test::process running("quantize", {in, out, "q8_0", "-t", "1"}, "/dev/null");
    wait_for_more_than(1, folder.path());
    std::this_thread::sleep_for(moment(i, rng));
    running.send(signal);
    const auto found = running.wait();
    INFO("exit status " << found.status << ", " << found.err);
    if (found.status == 0) {  // it was done before the signal came
      std::filesystem::remove(out);
      continue;
    }
    ++stopped;
    CHECK(found.status == -signal);
    CHECK(test::contains(found.err, "cancelled"));
    CHECK(names_in(folder) == names{"in.gguf"});
  }
  CHECK(stopped > 0);
  CHECK(std::filesystem::last_write_time(in) == changed);
}

TEST_CASE("quantize: killed at random moments, it leaves no file under the name, and runs again") {
  const test::temporary_folder folder;
  const std::string in = large_file(folder), out = (folder / "out.gguf").string();
  std::mt19937 rng(8);
  int killed = 0;
  for (int i = 0; i < 5; ++i) {
    const std::size_t left = names_in(folder).size();
    test::process running("quantize", {in, out, "q8_0", "-t", "1"}, "/dev/null");
    wait_for_more_than(left, folder.path());
    std::this_thread::sleep_for(moment(i, rng));
    running.send(SIGKILL);
    if (running.wait().status == 0) {
      CHECK(nibble::gguf::file(out).tensors().size() == 1);
      std::filesystem::remove(out);
      continue;
    }
    ++killed;
    CHECK(!std::filesystem::exists(out));
    for (const std::string& name : names_in(folder)) {
      CHECK((name == "in.gguf" || name.ends_with(".part")));
    }
  }
  CHECK(killed > 0);
  test::run_well("quantize", {in, out, "f16"});
  CHECK(nibble::gguf::file(out).tensors().size() == 1);
}

TEST_CASE("quantize: without room on the disk it says so, and nothing has the name") {
  const test::temporary_folder folder;
  const std::string out = (folder / "out.gguf").string();
  for (const strings& more : {strings{}, strings{"--split-max-size", "600KB"}}) {
    strings words{model, out, "q8_0"};
    words.insert(words.end(), more.begin(), more.end());
    const file_size_limit limit(400000);
    const auto found = test::run("quantize", words);
    test::check_refused(found, {"out", "cannot be written", "bytes had been written"}, 1);
    CHECK(names_in(folder) == names{});
  }
  const small_disk disk(folder / "disk", "size=1m");
  if (!disk.mounted()) return;
  for (const strings& more : {strings{}, strings{"--split-max-size", "600KB"}}) {
    strings words{model, (folder / "disk" / "out.gguf").string(), "q8_0"};
    words.insert(words.end(), more.begin(), more.end());
    test::check_refused(test::run("quantize", words),
                        {"out", "cannot be written", "the disk has", "left"}, 1);
    CHECK(names_in(folder / "disk") == names{});
  }
  // a file of this name, from before, stays
  test::write_file(folder / "disk" / "out.gguf", "before");
  CHECK(test::run("quantize", {model, (folder / "disk" / "out.gguf").string(), "q8_0"}).status ==
        1);
  CHECK(test::read_file(folder / "disk" / "out.gguf") == "before");
}

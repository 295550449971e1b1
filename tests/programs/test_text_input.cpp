// How programs read text that comes slowly, is long or has no end: no more of it than is needed,
// and a signal ends the waiting.

#include <sys/stat.h>

#include <chrono>
#include <csignal>
#include <nibble/quantise/imatrix.hpp>
#include <thread>

#include "process.hpp"

namespace {

using strings = std::vector<std::string>;

const std::string model = test::tales.string();

// A pipe with a name. What is written to it is a text that does not end while this lives.
class open_text {
 public:
  explicit open_text(const test::temporary_folder& folder) : path_((folder / "pipe").string()) {
    REQUIRE(::mkfifo(path_.c_str(), 0600) == 0);
    writer_ = ::open(path_.c_str(), O_RDWR);
    REQUIRE(writer_ >= 0);
  }
  open_text(const open_text&) = delete;
  open_text& operator=(const open_text&) = delete;
  ~open_text() { ::close(writer_); }

  void write(const std::string& text) const {
    REQUIRE(::write(writer_, text.data(), text.size()) == static_cast<ssize_t>(text.size()));
  }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
  int writer_ = -1;
};

std::string some_text(int sentences) {
  std::string text;
  for (int i = 0; i < sentences; ++i) {
    text += i % 2 == 0 ? "Once upon a time, there lived a boy named Ben. "
                       : "The old cat slept on the wall and dreamed of a fish.\n\n";
  }
  return text;
}

// Ends the process, but not before some time for it to begin to wait.
test::outcome ended_by(test::process& running, int signal) {
  std::this_thread::sleep_for(std::chrono::milliseconds(300));
  const auto sent = std::chrono::steady_clock::now();
  running.send(signal);
  const auto found = running.wait();
  CHECK(std::chrono::steady_clock::now() - sent < std::chrono::seconds(2));
  return found;
}

}  // namespace

TEST_CASE("text: a signal ends the waiting for text, as an interruption") {
  for (const int signal : {SIGINT, SIGTERM}) {
    for (const std::string program : {"perplexity", "imatrix"}) {
      for (const bool named : {false, true}) {
        const test::temporary_folder folder;
        const open_text text(folder);
        text.write("Once upon a time");
        strings words{model, "--text", named ? text.path() : "-"};
        if (program == "imatrix") words.insert(words.end(), {"-o", (folder / "out").string()});
        test::process running(program, words, named ? "/dev/null" : text.path());
        const auto found = ended_by(running, signal);
        INFO(program << ": " << found.err);
        CHECK(found.status == -signal);
        CHECK(test::contains(found.err, "interrupted while"));
        CHECK(test::contains(
            found.err, program == "imatrix" ? "nothing was written" : "no results were written"));
        CHECK(names_in(folder) == std::set<std::string>{"pipe"});
      }
    }
    for (const strings& words : {strings{"generate", model, "-"}, strings{"tokenize", model}}) {
      const test::temporary_folder folder;
      const open_text text(folder);
      test::process running(words[0], {words.begin() + 1, words.end()}, text.path());
      const auto found = ended_by(running, signal);
      INFO(words[0] << ": " << found.err);
      CHECK(found.status == -signal);
      CHECK(test::contains(found.err, "interrupted while the standard input was read"));
    }
  }
}

TEST_CASE("text: a signal ends the waiting for whoever writes to a pipe") {
  const test::temporary_folder folder;
  const std::string pipe = (folder / "pipe").string();
  REQUIRE(::mkfifo(pipe.c_str(), 0600) == 0);
  test::process running("perplexity", {model, "--text", pipe}, "/dev/null");
  const auto found = ended_by(running, SIGINT);
  INFO(found.err);
  CHECK(found.status == -SIGINT);
  CHECK(test::contains(found.err, "interrupted while '" + pipe + "' was read"));
}

TEST_CASE("text: a signal ends the tokenising of a long text") {
  const test::temporary_folder folder;
  std::string text;
  while (text.size() < (200u << 20)) text += some_text(20000);
  const std::string path = test::write_file(folder / "text", text).string();
  test::process running("perplexity", {model, "--text", path}, "/dev/null");
  std::this_thread::sleep_for(std::chrono::milliseconds(500));
  const auto found = ended_by(running, SIGTERM);
  INFO(found.err);
  CHECK(found.status == -SIGTERM);
  CHECK(test::contains(found.err, "interrupted while"));
}

TEST_CASE(
    "text: --chunks reads no more than is needed, and finds what all of the text would give") {
  const std::string whole = some_text(4000);
  const std::string ids = [] {
    std::string all;
    for (int i = 0; i < 20000; ++i) all += std::to_string(300 + i % 1000) + (i % 7 ? " " : "\n");
    return all;
  }();
  const struct {
    strings words;
    const std::string& text;
  } cases[] = {
      {{"--text", "", "--chunk", "64", "--chunks", "3"}, whole},
      {{"--text", "", "--chunk", "64", "--chunks", "2", "--skip", "4"}, whole},
      {{"--text", "", "--chunk", "64", "--chunks", "3", "--stride", "20"}, whole},
      {{"--text", "", "--documents", "Ben", "--chunks", "3"}, whole},
      {{"--text", "", "--documents", "Ben", "--chunks", "3", "--skip", "2"}, whole},
      {{"--tokens", "", "--chunk", "64", "--chunks", "3"}, ids},
  };
  for (const auto& c : cases) {
    const test::temporary_folder folder;
    const open_text endless(folder);
    // what a pipe holds at least
    endless.write(c.text.substr(0, 60000));
    const auto measured = [&](const std::string& path) {
      strings words = c.words;
      words[1] = path;
      words.insert(words.begin(), model);
      words.insert(words.end(), {"-t", "1"});
      const std::string shown = test::run_well("perplexity", words);
      return shown.substr(shown.find(": "));
    };
    INFO(c.words[2] << ' ' << c.words.back());
    const std::string expected = measured(test::write_file(folder / "text", c.text).string());
    const std::string found = measured(endless.path());  // would wait forever for the end
    CHECK(found.substr(found.find("nats")) == expected.substr(expected.find("nats")));
  }
}

TEST_CASE("text: without an end it is refused, not taken until memory ends") {
  if (!std::filesystem::exists("/dev/zero")) return;
  const auto refused = [](strings words, std::string_view because) {
    words.insert(words.begin(), model);
    INFO(words[1]);
    test::check_refused(test::run("perplexity", words), {"/dev/zero", because}, 1);
  };
  refused({"--text", "/dev/zero"}, "does not end within 512 MiB");
  refused({"--text", "/dev/zero", "--documents", "x"}, "does not end within 512 MiB");
  refused({"--tokens", "/dev/zero"}, "is not a token id");
}

TEST_CASE("text: marks between documents that never occur are pointed out") {
  const test::temporary_folder folder;
  const std::string text = test::write_file(folder / "text", some_text(4)).string();
  const auto said = [&](const std::string& mark) {
    return test::run("perplexity", {model, "--text", text, "--documents", mark, "-t", "1"}).err;
  };
  CHECK(test::contains(said("%%"), "'%%' does not occur in '" + text + "'"));
  CHECK(!test::contains(said("Ben"), "does not occur"));
}

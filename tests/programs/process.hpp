// Runs a program as a process of its own, without a shell, and keeps what it writes.
#pragma once

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>
#include <initializer_list>
#include <iterator>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "catch.hpp"
#include "temporary_folder.hpp"
#include "test_data.hpp"

extern char** environ;

namespace test {

inline std::string read_file(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  if (!in) throw std::runtime_error("cannot be read: " + path.string());
  return {std::istreambuf_iterator<char>(in), {}};
}

inline std::filesystem::path write_file(const std::filesystem::path& path,
                                        std::string_view contents) {
  std::ofstream out(path, std::ios::binary);
  out << contents;
  if (!out.flush()) throw std::runtime_error("cannot be written: " + path.string());
  return path;
}

inline std::string program_path(std::string_view name) {
  static const std::pair<std::string_view, const char*> paths[] = {
#include "program_paths.inc"
  };
  for (const auto& [known, path] : paths) {
    if (known == name) return path;
  }
  throw std::logic_error("no such program: " + std::string(name));
}

struct outcome {
  int status = 0;  // exit status; minus the signal that ended the process
  std::string out, err;
};

// A process that is running. Its output goes to files, so it never waits for a reader.
class process {
 public:
  // program: a name as in "generate", or a path. `out` in place of a file of its own for the
  // standard output. `in` is the standard input.
  process(std::string_view program, const std::vector<std::string>& arguments,
          const std::string& in, const std::string& out = "")
      : out_(out.empty() ? (folder_ / "out").string() : out), err_((folder_ / "err").string()) {
    const bool is_path = program.find('/') != program.npos;
    std::vector<std::string> words{is_path ? std::string(program) : program_path(program)};
    words.insert(words.end(), arguments.begin(), arguments.end());
    std::vector<char*> argv;
    for (std::string& word : words) argv.push_back(word.data());
    argv.push_back(nullptr);

    constexpr int create = O_WRONLY | O_CREAT | O_TRUNC;
    posix_spawn_file_actions_t files;
    posix_spawn_file_actions_init(&files);
    posix_spawn_file_actions_addopen(&files, STDIN_FILENO, in.c_str(), O_RDONLY, 0);
    posix_spawn_file_actions_addopen(&files, STDOUT_FILENO, out_.c_str(), create, 0600);
    posix_spawn_file_actions_addopen(&files, STDERR_FILENO, err_.c_str(), create, 0600);
    const int failed = posix_spawn(&id_, argv[0], &files, nullptr, argv.data(), environ);
    posix_spawn_file_actions_destroy(&files);
    if (failed != 0) throw std::runtime_error("cannot be started: " + words[0]);
  }
  process(const process&) = delete;
  process& operator=(const process&) = delete;
  ~process() {
    if (id_ == 0) return;
    ::kill(id_, SIGKILL);
    ::waitpid(id_, nullptr, 0);
  }

  void send(int signal) const { ::kill(id_, signal); }
  // What it has written so far.
  std::string output() const { return read_file(out_); }

  outcome wait() {
    int status = 0;
    if (::waitpid(std::exchange(id_, 0), &status, 0) < 0) throw std::runtime_error("waitpid");
    const int code = WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
    const bool own = out_ == (folder_ / "out").string();
    return {code, own ? output() : "", read_file(err_)};
  }

 private:
  temporary_folder folder_;
  std::string out_, err_;
  pid_t id_ = 0;
};

// Runs a program to its end. `input` is what it reads; `out` as above.
inline outcome run(std::string_view program, const std::vector<std::string>& arguments,
                   std::string_view input = "", const std::string& out = "") {
  const temporary_folder folder;
  const auto in = write_file(folder / "in", input);
  return process(program, arguments, in.string(), out).wait();
}

inline bool contains(std::string_view text, std::string_view part) {
  return text.find(part) != std::string_view::npos;
}

inline std::string run_well(std::string_view program, const std::vector<std::string>& arguments,
                            std::string_view input = "") {
  const outcome found = run(program, arguments, input);
  INFO(program << ": " << found.err);
  REQUIRE(found.status == 0);
  return found.out;
}

// The program must end with an exit status (1 for what fails while it works), a sentence with these
// parts on stderr, and nothing on stdout.
inline void check_refused(const outcome& found, std::initializer_list<std::string_view> parts,
                          std::optional<int> status = {}) {
  INFO("exit status " << found.status << ", stderr: " << found.err);
  CHECK(found.status > 0);
  if (status) CHECK(found.status == *status);
  CHECK(found.out == "");
  for (const std::string_view part : parts) {
    INFO("expected in it: " << part);
    CHECK(contains(found.err, part));
  }
  // not what a sanitizer or a failed assertion says
  CHECK(!contains(found.err, "ERROR: "));
  CHECK(!contains(found.err, "runtime error"));
}

}  // namespace test

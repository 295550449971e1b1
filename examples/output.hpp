// Files that programs write. A file has its name when it is whole, and nothing is left of one that
// an error or a signal ended; only kill -9 leaves the temporary one, "<name>.<number>.part".
#pragma once

#include <sys/stat.h>
#include <unistd.h>
#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <nibble/base/concat.hpp>
#include <nibble/base/error.hpp>
#include <nibble/base/replace.hpp>
#include <nibble/gguf/value.hpp>
#include <optional>
#include <ostream>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "signals.hpp"

namespace common {

// `what` as in "cannot be written"; the reason is errno's: whatever failed has just set it.
[[noreturn]] inline void fail_to(const char* what, const std::string& name) {
  const int reason = errno;
  const std::string text = reason == 0 ? "." : ": " + std::generic_category().message(reason) + ".";
  throw nibble::error(nibble::errc::io, nibble::concat("cannot be ", what, text), {.file = name});
}

// Output goes through a buffer, so only now it is known whether all of it arrived.
inline void finish(std::ostream& out, const std::string& name) {
  if (!out.flush()) fail_to("written", name);
}

// STDOUT_FILENO or STDERR_FILENO if the path leads to what that is, and the path is not one of a
// device (a terminal, /dev/null), which keeps nothing that two could write over; else -1.
inline int standard_stream(const std::string& path) {
  struct stat wanted {};
  struct stat open {};
  if (::stat(path.c_str(), &wanted) != 0 || S_ISCHR(wanted.st_mode)) return -1;
  for (const int fd : {STDOUT_FILENO, STDERR_FILENO}) {
    if (::fstat(fd, &open) != 0) continue;
    if (open.st_dev == wanted.st_dev && open.st_ino == wanted.st_ino) return fd;
  }
  return -1;
}

// For the name of a file to write: what is wrong with it.
inline std::string is_output(const std::string& path) {
  if (path.empty()) return "must not be empty";
  return path == "-" ? "- is no name of a file" : "";
}

// The same in programs that print something else on the standard output, or on the other.
inline std::string is_separate_output(const std::string& path) {
  const std::string fault = is_output(path);
  if (!fault.empty()) return fault;
  const int fd = standard_stream(path);
  if (fd < 0) return "";
  return nibble::concat("'", nibble::gguf::printable(path), "' is the standard ",
                        fd == STDOUT_FILENO ? "output" : "error",
                        ", which gets what the program has to say; another file was expected");
}

// `taken`: files that are read, or written under another option, and must not be replaced. Of a
// model: gguf::file::paths().
inline void refuse_input_as_output(const std::filesystem::path& path,
                                   const std::vector<std::filesystem::path>& taken) {
  namespace fs = std::filesystem;
  std::error_code absent;
  const fs::path place = fs::weakly_canonical(path, absent);
  for (const auto& other : taken) {
    const bool same = fs::is_regular_file(path, absent)
                          ? fs::equivalent(path, other, absent)
                          : place == fs::weakly_canonical(other, absent);
    if (other.empty() || !same) continue;
    // a device or a pipe keeps nothing that could be lost
    if (fs::exists(path, absent) && !fs::is_regular_file(path, absent)) continue;
    throw nibble::error(
        nibble::errc::invalid_argument,
        "is an input or another output and would be lost; another name was expected.",
        {.file = path.string()});
  }
}

// A file to write. It takes its name when it is whole, so an error leaves what was there before. A
// link stays one, the permissions stay, and the file that it leads to is replaced; what is no
// regular file (a device, a pipe) is written in place. What leads to the standard output or error
// goes through that, after what was printed there: opened anew, it would begin at its beginning.
class output {
 public:
  output(std::string path, const std::vector<std::filesystem::path>& inputs)
      : path_(std::move(path)),
        standard_(standard_stream_of(path_)),
        target_(target_of(path_)),
        temporary_(temporary_beside(inputs)),
        guard_(temporary_) {
    if (standard_ != nullptr) return;
    open();
    if (temporary_.empty()) return;
    try {
      nibble::keep_permissions(target_, temporary_);
    } catch (...) {  // no destructor follows
      remove_temporary();
      throw;
    }
  }
  output(const output&) = delete;
  output& operator=(const output&) = delete;
  ~output() { remove_temporary(); }

  std::ostream& stream() { return standard_ != nullptr ? *standard_ : file_; }

  void finish() {
    common::finish(stream(), path_);
    if (standard_ != nullptr) return;
    file_.close();
    if (!file_) fail_to("written", path_);
    if (temporary_.empty()) return;
    if (std::rename(temporary_.c_str(), target_.c_str()) != 0) fail_to("written", path_);
    temporary_.clear();
  }

 private:
  static bool is_in_place(const std::string& path) {
    namespace fs = std::filesystem;
    std::error_code absent;
    // /dev/stdout may lead to a regular file, which others have open
    const bool of_system = path.starts_with("/dev/") || path.starts_with("/proc/");
    if (of_system && fs::is_symlink(path, absent)) return true;
    const fs::file_type type = fs::status(path, absent).type();
    return type != fs::file_type::regular && type != fs::file_type::not_found;
  }
  static std::string target_of(const std::string& path) {
    if (is_in_place(path)) return path;
    std::error_code broken;  // a link that leads nowhere is replaced itself
    const auto followed = std::filesystem::canonical(path, broken);
    return broken ? path : followed.string();
  }
  std::string temporary_beside(const std::vector<std::filesystem::path>& inputs) const {
    refuse_input_as_output(path_, inputs);
    return standard_ != nullptr || is_in_place(path_)
               ? ""
               : nibble::concat(target_, ".", ::getpid(), ".part");
  }
  void remove_temporary() const {
    std::error_code ignored;
    if (!temporary_.empty()) std::filesystem::remove(temporary_, ignored);
  }
  void open() {
    std::optional<immediate_stop> waiting;  // for whoever reads from a pipe
    if (temporary_.empty()) waiting.emplace("interrupted while '" + path_ + "' was opened.");
    errno = 0;
    file_.open(temporary_.empty() ? path_ : temporary_, std::ios::binary);
    if (!file_) fail_to("opened for writing", path_);
  }

  static std::ostream* standard_stream_of(const std::string& path) {
    const int fd = standard_stream(path);
    return fd == STDOUT_FILENO ? &std::cout : fd == STDERR_FILENO ? &std::cerr : nullptr;
  }

  std::string path_;
  std::ostream* standard_;  // nullptr: a file of its own
  std::string target_, temporary_;
  detail::removed_by_signals guard_;
  std::ofstream file_;
};

}  // namespace common

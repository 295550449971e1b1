// Files that programs write. A file has its name when it is whole, and nothing is left of one that
// an error or a signal ended; only kill -9 leaves the temporary one, "<name>.<number>.part".
#pragma once

#include <unistd.h>
#include <filesystem>
#include <fstream>
#include <nibble/base/concat.hpp>
#include <nibble/base/error.hpp>
#include <nibble/base/replace.hpp>
#include <ostream>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "signals.hpp"

namespace common {

// Output goes through a buffer, so only now it is known whether all of it arrived.
inline void finish(std::ostream& out, const std::string& name) {
  if (!out.flush()) throw nibble::error(nibble::errc::io, "cannot be written.", {.file = name});
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
// regular file (a device, a pipe) is written in place.
class output {
 public:
  output(std::string path, const std::vector<std::filesystem::path>& inputs)
      : path_(std::move(path)),
        target_(target_of(path_)),
        temporary_(temporary_beside(inputs)),
        guard_(temporary_) {
    stream_.open(temporary_.empty() ? path_ : temporary_, std::ios::binary);
    if (!stream_) fail("cannot be opened for writing.");
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

  std::ostream& stream() { return stream_; }

  void finish() {
    common::finish(stream_, path_);
    stream_.close();
    if (!stream_) fail("cannot be written.");
    if (temporary_.empty()) return;
    std::error_code failed;
    std::filesystem::rename(temporary_, target_, failed);
    if (failed) fail("cannot be written.");
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
    return is_in_place(path_) ? "" : nibble::concat(target_, ".", ::getpid(), ".part");
  }
  void remove_temporary() const {
    std::error_code ignored;
    if (!temporary_.empty()) std::filesystem::remove(temporary_, ignored);
  }
  [[noreturn]] void fail(const char* what) const {
    throw nibble::error(nibble::errc::io, what, {.file = path_});
  }

  std::string path_, target_, temporary_;
  detail::removed_by_signals guard_;
  std::ofstream stream_;
};

}  // namespace common

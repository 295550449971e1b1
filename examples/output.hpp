// Files that programs write. A file has its name when it is whole, and nothing is left of one that
// an error or a signal ended; only kill -9 leaves the temporary one, "<name>.<number>.part".
#pragma once

#include <unistd.h>
#include <array>
#include <atomic>
#include <csignal>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <nibble/base/concat.hpp>
#include <nibble/base/error.hpp>
#include <ostream>
#include <stop_token>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

namespace common {

namespace detail {

// What a signal's handler may touch: lock-free atomics and memory that is always there.
struct temporary_name {
  std::atomic<bool> used{false};  // the path is one to remove
  std::atomic<bool> taken{false};
  std::array<char, 4096> path{};
};
inline std::array<temporary_name, 8> temporary_names;
inline std::atomic<bool> stops_gracefully{false};
inline std::atomic<int> caught{0};
static_assert(std::atomic<int>::is_always_lock_free && std::atomic<bool>::is_always_lock_free);

inline void on_signal(int signal) {
  if (stops_gracefully && caught.exchange(signal) == 0) return;
  for (const temporary_name& name : temporary_names) {
    if (name.used) ::unlink(name.path.data());
  }
  ::signal(signal, SIG_DFL);
  ::raise(signal);
}

inline void handle_signals() {
  for (const int signal : {SIGINT, SIGTERM, SIGHUP}) {
    struct sigaction before {};
    ::sigaction(signal, nullptr, &before);
    if (before.sa_handler != SIG_DFL) continue;  // ignored, as under nohup, or ours already
    struct sigaction action {};
    action.sa_handler = on_signal;
    ::sigaction(signal, &action, nullptr);
  }
  ::signal(SIGXFSZ, SIG_IGN);  // a write beyond the limit on file sizes is an error like any other
}

// A name that signals remove while this lives.
class removed_by_signals {
 public:
  explicit removed_by_signals(const std::string& path) {
    handle_signals();
    for (temporary_name& name : temporary_names) {
      if (path.size() >= name.path.size() || name.taken.exchange(true)) continue;
      name_ = &name;
      std::memcpy(name.path.data(), path.c_str(), path.size() + 1);
      name.used = true;
      return;
    }
  }
  removed_by_signals(const removed_by_signals&) = delete;
  removed_by_signals& operator=(const removed_by_signals&) = delete;
  ~removed_by_signals() {
    if (name_ == nullptr) return;
    name_->used = false;
    name_->taken = false;
  }

 private:
  temporary_name* name_ = nullptr;
};

}  // namespace detail

// While it lives, a first SIGINT, SIGTERM or SIGHUP asks the work to stop and to leave nothing
// behind; a second one ends the program at once. common::run() then ends by that signal.
class graceful_stop {
 public:
  graceful_stop() {
    detail::handle_signals();
    detail::stops_gracefully = true;
  }
  graceful_stop(const graceful_stop&) = delete;
  graceful_stop& operator=(const graceful_stop&) = delete;
  ~graceful_stop() { detail::stops_gracefully = false; }

  std::stop_token token() const { return source_.get_token(); }
  // To be called now and then by the work, as with its progress: passes a signal on to the token.
  void poll() {
    if (detail::caught != 0) source_.request_stop();
  }
  // For work that has no token: throws nibble::error (cancelled) if it shall stop. say(): what was
  // interrupted, and what is kept.
  template <typename Say>
  void check(const Say& say) {
    poll();
    if (source_.stop_requested()) throw nibble::error(nibble::errc::cancelled, say());
  }

 private:
  std::stop_source source_;
};

// Ends the program by the signal that asked it to stop, as whoever started it expects.
inline void end_by_caught_signal() {
  if (const int signal = detail::caught; signal != 0) {
    ::signal(signal, SIG_DFL);
    ::raise(signal);
  }
}

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
// link stays one, and the file that it leads to is replaced; what is no regular file (a device, a
// pipe) is written in place.
class output {
 public:
  output(std::string path, const std::vector<std::filesystem::path>& inputs)
      : path_(std::move(path)),
        target_(target_of(path_)),
        temporary_(temporary_beside(inputs)),
        guard_(temporary_) {
    stream_.open(temporary_.empty() ? path_ : temporary_, std::ios::binary);
    if (!stream_) fail("cannot be opened for writing.");
  }
  output(const output&) = delete;
  output& operator=(const output&) = delete;
  ~output() {
    std::error_code ignored;
    if (!temporary_.empty()) std::filesystem::remove(temporary_, ignored);
  }

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
  [[noreturn]] void fail(const char* what) const {
    throw nibble::error(nibble::errc::io, what, {.file = path_});
  }

  std::string path_, target_, temporary_;
  detail::removed_by_signals guard_;
  std::ofstream stream_;
};

}  // namespace common

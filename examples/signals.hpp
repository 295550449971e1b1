// What SIGINT, SIGTERM and SIGHUP do to the programs.
#pragma once

#include <unistd.h>
#include <algorithm>
#include <array>
#include <atomic>
#include <csignal>
#include <cstring>
#include <nibble/base/error.hpp>
#include <stop_token>
#include <string>

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
inline std::array<char, 8192> last_words{};  // said by a signal that ends the program at once
inline std::atomic<std::size_t> last_words_size{0};
static_assert(std::atomic<int>::is_always_lock_free && std::atomic<bool>::is_always_lock_free &&
              std::atomic<std::size_t>::is_always_lock_free);

inline void on_signal(int signal) {
  const std::size_t words = last_words_size;
  if (words == 0 && stops_gracefully && caught.exchange(signal) == 0) return;
  if (words > 0) static_cast<void>(!::write(STDERR_FILENO, last_words.data(), words));
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

// While it lives, the first such signal ends the program at once, with this sentence and without
// the names that signals remove: for work that cannot be asked to stop, such as waiting for a pipe.
// One that came before, to a graceful_stop, is thrown as nibble::error (cancelled).
class immediate_stop {
 public:
  explicit immediate_stop(const std::string& sentence) {
    detail::handle_signals();
    const std::string words = "error: " + sentence + '\n';
    const std::size_t size = std::min(words.size(), detail::last_words.size());
    std::memcpy(detail::last_words.data(), words.data(), size);
    detail::last_words_size = size;
    if (detail::caught == 0) return;
    detail::last_words_size = 0;
    throw nibble::error(nibble::errc::cancelled, sentence);
  }
  immediate_stop(const immediate_stop&) = delete;
  immediate_stop& operator=(const immediate_stop&) = delete;
  ~immediate_stop() { detail::last_words_size = 0; }
};

// SIGINT asks `source`, which must outlive the program's work, to stop; a second one ends the
// program at once. For work that looks at a token and polls nothing. Waiting for input ends, too.
inline void stop_on_interrupt(std::stop_source& source) {
  static std::stop_source* asked = nullptr;
  struct sigaction action {};
  ::sigaction(SIGINT, nullptr, &action);
  if (action.sa_handler == SIG_IGN) return;  // as in the background of a shell
  asked = &source;
  action = {};
  action.sa_handler = [](int signal) {
    detail::caught = signal;
    asked->request_stop();
  };
  action.sa_flags = SA_RESETHAND;  // and not SA_RESTART
  ::sigaction(SIGINT, &action, nullptr);
}

// Ends the program by the signal that asked it to stop, as whoever started it expects.
inline void end_by_caught_signal() {
  if (const int signal = detail::caught; signal != 0) {
    ::signal(signal, SIG_DFL);
    ::raise(signal);
  }
}

}  // namespace common

// One line on a terminal that says how far long work has come.
#pragma once

#include <unistd.h>
#include <chrono>
#include <iostream>
#include <string>

namespace common {

// Shows nothing where the standard error is no terminal. The line goes when this ends.
class progress_line {
 public:
  // Nothing is shown before so much time has passed.
  explicit progress_line(std::chrono::milliseconds delay = {}) : next_(start_ + delay) {}
  progress_line(const progress_line&) = delete;
  progress_line& operator=(const progress_line&) = delete;
  ~progress_line() {
    if (shown_) std::cerr << "\r\x1b[K" << std::flush;
  }

  // make(): the text; called only as often as an eye can follow.
  template <typename Make>
  void show(const Make& make) {
    const auto now = std::chrono::steady_clock::now();
    if (!terminal_ || now < next_) return;
    next_ = now + std::chrono::milliseconds(100);
    shown_ = true;
    std::cerr << '\r' << make() << "\x1b[K" << std::flush;
  }

  // Of work that has come so far, from its beginning; "" if that cannot be told yet.
  std::string remaining(double share) const {
    const std::chrono::duration<double> used = std::chrono::steady_clock::now() - start_;
    if (share <= 0 || used.count() < 2) return "";
    const auto left = static_cast<long>(used.count() * (1 - share) / share);
    const std::string seconds = std::to_string(left % 60) + " s";
    return left < 60 ? seconds : std::to_string(left / 60) + " min " + seconds;
  }

 private:
  bool terminal_ = ::isatty(STDERR_FILENO) == 1, shown_ = false;
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now(), next_;
};

}  // namespace common

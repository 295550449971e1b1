// Text that programs read: files, pipes and the standard input, which may come slowly or never end.
#pragma once

#include <fcntl.h>
#include <unistd.h>
#include <array>
#include <cerrno>
#include <charconv>
#include <new>
#include <nibble/base/concat.hpp>
#include <nibble/gguf/value.hpp>
#include <nibble/text/tokenizer.hpp>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "signals.hpp"

namespace common {

// Reads piece by piece. Waits where it must, so whoever wants signals heard has an immediate_stop.
class text_input {
 public:
  // "-" is the standard input. `name` stands for the path in errors.
  text_input(const std::string& path, std::string name)
      : name_(std::move(name)),
        fd_(path == "-" ? STDIN_FILENO : ::open(path.c_str(), O_RDONLY | O_CLOEXEC)) {
    if (fd_ < 0) fail(nibble::errc::io, "cannot be opened.");
  }
  explicit text_input(const std::string& path) : text_input(path, path) {}
  text_input(const text_input&) = delete;
  text_input& operator=(const text_input&) = delete;
  ~text_input() {
    if (fd_ != STDIN_FILENO) ::close(fd_);
  }

  // Appends what comes next; false at the end. Throws nibble::error: io; invalid_argument if more
  // is held than can be tokenised, as of a text without an end; out_of_memory.
  bool read(std::string& text) {
    ssize_t count = 0;
    do {
      count = ::read(fd_, piece_.data(), piece_.size());
    } while (count < 0 && errno == EINTR);
    if (count < 0) fail(nibble::errc::io, "cannot be read.");
    try {
      text.append(piece_.data(), static_cast<std::size_t>(count));
    } catch (const std::bad_alloc&) {
      fail(nibble::errc::out_of_memory, "does not fit into memory.");
    }
    check_held(text.size());
    return count > 0;
  }

  // The same limit for bytes that are held in another form.
  void check_held(std::size_t bytes) const {
    constexpr std::size_t most = nibble::tokenizer::longest_text;
    if (bytes <= most) return;
    fail(nibble::errc::invalid_argument,
         nibble::concat("does not end within ", (most >> 20) + 1,
                        " MiB, which is the most that can be taken at once."));
  }

  const std::string& name() const { return name_; }
  [[noreturn]] void fail(nibble::errc code, const std::string& sentence) const {
    throw nibble::error(code, sentence, {.file = name_});
  }

 private:
  std::string name_;
  int fd_;
  std::array<char, 1 << 16> piece_{};
};

inline std::string read_all(text_input& in) {
  std::string text;
  while (in.read(text)) {
  }
  return text;
}

constexpr const char* standard_input = "standard input";

inline std::string read_standard_input() {
  const immediate_stop stop("interrupted while the standard input was read; nothing was done.");
  text_input in("-", standard_input);
  return read_all(in);
}

constexpr std::string_view white_space = " \t\n\v\f\r";

// Appends the token ids between white space.
inline void append_tokens(std::string_view text, const text_input& from,
                          std::vector<nibble::token>& tokens) {
  for (std::size_t at = 0; (at = text.find_first_not_of(white_space, at)) != text.npos;) {
    const std::string_view word = text.substr(at, text.find_first_of(white_space, at) - at);
    nibble::token id = 0;
    const auto read = std::from_chars(word.data(), word.data() + word.size(), id);
    if (read.ec != std::errc{} || read.ptr != word.data() + word.size()) {
      from.fail(nibble::errc::invalid_argument,
                nibble::concat("'", nibble::gguf::printable(word, 64),
                               "' is not a token id; whole numbers were expected."));
    }
    tokens.push_back(id);
    at += word.size();
  }
}

// Token ids between white space, up to the end of the input or until there are `enough`.
inline std::vector<nibble::token> read_tokens(text_input& in, std::size_t enough = -1) {
  std::vector<nibble::token> tokens;
  std::string text;
  for (bool more = true; more && tokens.size() < enough;) {
    more = in.read(text);
    // the last word may go on in what comes next
    std::size_t end = more ? text.find_last_of(white_space) + 1 : text.size();
    if (text.size() - end > 64) end = text.size();  // no id is so long
    append_tokens(std::string_view(text).substr(0, end), in, tokens);
    text.erase(0, end);
    in.check_held(tokens.size() * sizeof(nibble::token));
  }
  return tokens;
}

}  // namespace common

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <nibble/base/concat.hpp>
#include <nibble/base/error.hpp>
#include <text/pre_tokenizer.hpp>

namespace nibble::inline NIBBLE_ABI::text {
namespace {

// White space by Unicode's property White_Space, which is what the tokenizers that published these
// patterns mean by \s. PCRE2's own \s also has U+180E.
constexpr std::string_view white_space =
    R"(\t-\r \x{85}\x{A0}\x{1680}\x{2000}-\x{200A}\x{2028}\x{2029}\x{202F}\x{205F}\x{3000})";

// Writes \s and \S out, inside and outside of [...]. (No pattern here has \S inside.)
std::string expand_white_space(std::string_view pattern) {
  std::string out;
  bool in_class = false;
  for (std::size_t i = 0; i < pattern.size(); ++i) {
    const char c = pattern[i];
    if (c == '\\' && i + 1 < pattern.size()) {
      const char next = pattern[++i];
      if (next == 's' || next == 'S') {
        out += in_class ? "" : next == 's' ? "[" : "[^";
        out += white_space;
        out += in_class ? "" : "]";
      } else {
        out += {c, next};
      }
      continue;
    }
    if (c == '[') in_class = true;
    if (c == ']') in_class = false;
    out += c;
  }
  return out;
}

std::string message_of(int code) {
  PCRE2_UCHAR text[256];
  if (pcre2_get_error_message(code, text, sizeof text) < 0) return concat("PCRE2 error ", code);
  return reinterpret_cast<const char*>(text);
}

struct free_code {
  void operator()(pcre2_code* p) const { pcre2_code_free(p); }
};

}  // namespace

struct pre_tokenizer::pattern {
  std::string_view source;
  std::unique_ptr<pcre2_code, free_code> code;
  bool jit = false;
};

struct pre_tokenizer::scratch::handles {
  pcre2_match_data* match = pcre2_match_data_create(1, nullptr);
  pcre2_match_context* context = pcre2_match_context_create(nullptr);

  handles() {
    if (match == nullptr || context == nullptr) {
      free_all();
      throw error(errc::out_of_memory, "No memory for the state of the pre-tokenizer's patterns.");
    }
    // of the interpreter, which takes ten times what compiled patterns do
    pcre2_set_heap_limit(context, 1024 * 1024);  // KiB
  }
  ~handles() { free_all(); }
  handles(const handles&) = delete;
  handles& operator=(const handles&) = delete;

  // One match of `p` from `at` on, by PCRE2's return codes.
  int find(const pattern& p, std::string_view text, std::size_t at) {
    const auto bytes = reinterpret_cast<PCRE2_SPTR>(text.data());
    const auto run = [&](auto matcher) {
      return matcher(p.code.get(), bytes, text.size(), at, PCRE2_NO_UTF_CHECK, match, context);
    };
    if (!p.jit) return run(pcre2_match);
    int found = run(pcre2_jit_match);
    while (found == PCRE2_ERROR_JIT_STACKLIMIT && stack_size_ < last_stack) {
      if (!grow_stack()) return PCRE2_ERROR_NOMEMORY;
      found = run(pcre2_jit_match);
    }
    return found;
  }

 private:
  // Compiled patterns run on 32 KiB of the thread's own stack, which is enough for text. Only
  // patterns whose repeated groups keep a frame for each turn need more, 16 bytes a character of a
  // very long word; the address space for the longest is too much to reserve for every text.
  static constexpr std::size_t first_stack = 1024 * 1024, last_stack = 256 * first_stack;

  // False if there is no memory for a larger stack.
  bool grow_stack() {
    const std::size_t size = stack_size_ == 0 ? first_stack : stack_size_ * 4;
    pcre2_jit_stack* const larger = pcre2_jit_stack_create(32 * 1024, size, nullptr);
    if (larger == nullptr) return false;
    pcre2_jit_stack_assign(context, nullptr, larger);
    pcre2_jit_stack_free(stack_);
    stack_ = larger;
    stack_size_ = size;
    return true;
  }

  void free_all() {
    pcre2_jit_stack_free(stack_);
    pcre2_match_context_free(context);
    pcre2_match_data_free(match);
  }

  pcre2_jit_stack* stack_ = nullptr;  // none: the thread's own
  std::size_t stack_size_ = 0;
};

pre_tokenizer::scratch::scratch() = default;
pre_tokenizer::scratch::~scratch() = default;
pre_tokenizer::~pre_tokenizer() = default;

pre_tokenizer::pre_tokenizer(const pre_tokenizer_rules& rules) : name_(rules.name) {
  for (const std::string_view source : rules.patterns) {
    const std::string text = expand_white_space(source);
    int code = 0;
    std::size_t offset = 0;
    pattern p{source, {}, false};
    p.code.reset(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(),
                               PCRE2_UTF | PCRE2_UCP, &code, &offset, nullptr));
    if (!p.code) {
      throw error(code == PCRE2_ERROR_HEAP_FAILED ? errc::out_of_memory : errc::unsupported,
                  concat("PCRE2 cannot compile the pattern '", source, "' of pre-tokenizer '",
                         name_, "': ", message_of(code), "."));
    }
    // where memory may not be executable the interpreter does the same, more slowly
    p.jit = pcre2_jit_compile(p.code.get(), PCRE2_JIT_COMPLETE) == 0;
    patterns_.push_back(std::move(p));
  }
}

void pre_tokenizer::split(std::string_view text, std::vector<std::uint32_t>& ends,
                          scratch& work) const {
  ends.clear();
  if (text.empty()) return;
  ends.push_back(static_cast<std::uint32_t>(text.size()));
  for (const pattern& p : patterns_) {
    work.spare_.swap(ends);
    ends.clear();
    apply(p, text, work.spare_, ends, work);
  }
}

void pre_tokenizer::apply(const pattern& p, std::string_view text,
                          const std::vector<std::uint32_t>& from, std::vector<std::uint32_t>& to,
                          scratch& work) const {
  if (!work.handles_) work.handles_ = std::make_unique<scratch::handles>();
  auto& handles = *work.handles_;
  const std::size_t* const match = pcre2_get_ovector_pointer(handles.match);
  std::uint32_t begin = 0;
  for (const std::uint32_t end : from) {
    // each piece is a text of its own: look-around does not see its neighbours
    const std::string_view piece = text.substr(begin, end - begin);
    for (std::size_t at = 0; at < piece.size();) {
      const int found = handles.find(p, piece, at);
      if (found < 0 && found != PCRE2_ERROR_NOMATCH) {
        const bool memory = found == PCRE2_ERROR_NOMEMORY || found == PCRE2_ERROR_HEAPLIMIT;
        throw error(
            memory ? errc::out_of_memory : errc::unsupported,
            concat("The pattern '", p.source, "' of pre-tokenizer '", name_, "' gave up on ",
                   piece.size(), " bytes of text: ", message_of(found), "."));
      }
      if (found == PCRE2_ERROR_NOMATCH || match[1] <= match[0]) break;
      if (match[0] > at) to.push_back(begin + static_cast<std::uint32_t>(match[0]));
      at = match[1];
      to.push_back(begin + static_cast<std::uint32_t>(at));
    }
    if (to.empty() || to.back() != end) to.push_back(end);
    begin = end;
  }
}

}  // namespace nibble::inline NIBBLE_ABI::text

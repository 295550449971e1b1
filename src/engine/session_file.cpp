// A session as a file: tokens, keys and values, logits.
//
// Little-endian: a header of fixed size (below); the model's fingerprint, 16 letters; tokens, i32;
// logits, f32; pages in the order of page_pool::pages_of, each with the bytes of
// kv_cache::read_page; and the fingerprint of all bytes before, 16 letters. Every size follows from
// the header and the model.
#include <algorithm>
#include <cstring>
#include <fstream>
#include <nibble/base/concat.hpp>
#include <nibble/base/fingerprint.hpp>
#include <span>
#include <type_traits>

#include "base/memory_for.hpp"
#include "engine/state.hpp"
#include "gguf/cursor.hpp"
#include "gguf/output_file.hpp"

namespace nibble::inline NIBBLE_ABI {
namespace {

constexpr char magic[8] = {'N', 'I', 'B', 'B', 'L', 'E', 'K', 'V'};
constexpr std::uint32_t version = 1;
constexpr std::size_t fingerprint_bytes = 16;

struct header {
  char magic[8];
  std::uint32_t version;
  std::uint32_t key, value;  // kv_type
  std::uint32_t rotate_key, rotate_value;
  std::uint32_t page_tokens;
  std::uint32_t tokens, cached, keep;
  std::int32_t pending;  // -1: none
  std::uint64_t dropped;
  std::uint64_t bytes_per_token;  // of keys and values
  std::uint32_t logits;           // n_vocab, or 0
  std::uint32_t reserved;         // 0
};
static_assert(sizeof(header) == 72 && std::is_trivially_copyable_v<header>);

// Bytes that pass by are added to a fingerprint.
class counted_output {
 public:
  explicit counted_output(const std::filesystem::path& path) : file_(path) {}
  void write(std::span<const std::byte> bytes) {
    print_.add(bytes);
    file_.write(bytes);
  }
  void finish() {
    const std::string print = print_.text();
    file_.write(std::as_bytes(std::span(print)));
    file_.finish();
    file_.publish();
  }

 private:
  gguf::output_file file_;
  fingerprint print_;
};

class counted_input {
 public:
  explicit counted_input(const std::filesystem::path& path) : name_(path.string()) {
    std::error_code failed;
    if (std::filesystem::exists(path, failed) && !std::filesystem::is_regular_file(path, failed)) {
      throw error(errc::io, "a saved session is a regular file, and this is none.",
                  {.file = name_});
    }
    file_.open(path, std::ios::binary);
    size_ = std::filesystem::file_size(path, failed);
    if (failed || !file_) {
      throw error(errc::io, "the saved session cannot be opened.", {.file = name_});
    }
  }

  void read(std::span<std::byte> to) {
    file_.read(reinterpret_cast<char*>(to.data()), static_cast<std::streamsize>(to.size()));
    if (!file_) {
      throw error(errc::io, "the saved session cannot be read.", {.file = name_, .offset = at_});
    }
    at_ += to.size();
    print_.add(to);
  }
  template <typename T>
  void read(T& to) {
    read(std::as_writable_bytes(std::span(&to, 1)));
  }
  // The fingerprint at the end.
  void check_end() {
    const std::string expected = print_.text();
    std::string found(fingerprint_bytes, '\0');
    read(std::as_writable_bytes(std::span(found)));
    if (found == expected) return;
    fail(errc::bad_file, "its bytes have changed since it was saved");
  }

  template <typename... Parts>
  [[noreturn]] void fail(errc code, const Parts&... parts) const {
    throw error(code, concat("the saved session cannot be used: ", parts..., "."), {.file = name_});
  }
  std::uint64_t size() const noexcept { return size_; }

 private:
  std::string name_;
  std::ifstream file_;
  std::uint64_t size_ = 0, at_ = 0;
  fingerprint print_;
};

template <typename T>
auto bytes_of(const std::vector<T>& values) {
  return std::as_bytes(std::span(values));
}

std::size_t page_bytes(const kv_cache& cache, const page_pool::held_page& p) {
  const kv_group& group = cache.groups()[p.group];
  if (group.kind == kv_kind::state) return group.state_bytes;
  return group.bytes_per_token * static_cast<std::size_t>(p.tokens);
}

// What a file must have in common with the model that it is loaded into.
void check_model(const counted_input& in, const header& h, const std::string& print,
                 const std::string& expected, const kv_layout& layout) {
  if (print != expected) {
    in.fail(errc::invalid_argument, "it is of another model (", gguf::printable(print), ", not ",
            expected, ")");
  }
  const auto types = [](std::uint32_t key, std::uint32_t value) {
    const auto name = [](std::uint32_t type) {
      return type < all_kv_types.size() ? all_kv_types[type].name : std::string_view("unknown");
    };
    return concat(name(key), " and ", name(value));
  };
  const auto key = static_cast<std::uint32_t>(layout.key);
  const auto value = static_cast<std::uint32_t>(layout.value);
  if (h.key != key || h.value != value) {
    in.fail(errc::invalid_argument, "its keys and values are ", types(h.key, h.value),
            "; the model was planned with ", types(key, value));
  }
  if (h.rotate_key != layout.rotate_key || h.rotate_value != layout.rotate_value) {
    in.fail(errc::invalid_argument,
            "its keys or values are rotated where the model was planned with others that are not, "
            "or the other way round");
  }
}

void check_numbers(const counted_input& in, const header& h, std::int32_t context,
                   std::int32_t n_vocab, std::size_t bytes_per_token) {
  if (h.page_tokens != kv_page_tokens || h.bytes_per_token != bytes_per_token) {
    in.fail(errc::bad_file, "it has pages of ", h.page_tokens, " tokens of ", h.bytes_per_token,
            " bytes; ", kv_page_tokens, " and ", bytes_per_token, " were expected");
  }
  if (h.tokens > static_cast<std::uint32_t>(context)) {
    in.fail(errc::invalid_argument, "it has ", h.tokens, " tokens; the context holds ", context);
  }
  const bool holds = h.cached <= h.tokens && h.keep < static_cast<std::uint32_t>(context) &&
                     h.dropped < (std::uint64_t{1} << 40) &&
                     (h.dropped == 0 || h.keep < h.cached) && h.pending >= -1 &&
                     h.pending < n_vocab && h.reserved == 0 &&
                     (h.logits == 0 || h.logits == static_cast<std::uint32_t>(n_vocab));
  if (!holds) in.fail(errc::bad_file, "the numbers at its beginning contradict each other");
}

}  // namespace

void session::save(const std::filesystem::path& path) const {
  with_memory_for("the saved session", [&] { state_->save(path); });
}

void session::state::save(const std::filesystem::path& path) const {
  const kv_layout& layout = loaded->cache->layout();
  header h{};
  std::copy_n(magic, sizeof(magic), h.magic);
  h.version = version;
  h.key = static_cast<std::uint32_t>(layout.key);
  h.value = static_cast<std::uint32_t>(layout.value);
  h.rotate_key = layout.rotate_key;
  h.rotate_value = layout.rotate_value;
  h.page_tokens = kv_page_tokens;
  h.tokens = static_cast<std::uint32_t>(tokens.size());
  h.cached = static_cast<std::uint32_t>(cached);
  h.keep = static_cast<std::uint32_t>(sequence.table.keep);
  h.pending = pending.value_or(-1);
  h.dropped = static_cast<std::uint64_t>(sequence.table.dropped);
  h.bytes_per_token = layout.bytes_per_token();
  h.logits = static_cast<std::uint32_t>(logits.size());
  counted_output out(path);
  out.write(std::as_bytes(std::span(&h, 1)));
  out.write(std::as_bytes(std::span(loaded->fingerprint)));
  out.write(bytes_of(tokens));
  out.write(bytes_of(logits));
  std::vector<std::byte> bytes;
  for (const auto& p : loaded->pages->pages_of(sequence, static_cast<std::int64_t>(cached))) {
    bytes.resize(page_bytes(*loaded->cache, p));
    loaded->cache->read_page(p.group, p.page, p.tokens, bytes.data());
    out.write(bytes);
  }
  out.finish();
}

void session::state::load(const std::filesystem::path& path) {
  counted_input in(path);
  header h{};
  const std::size_t least = sizeof(h) + 2 * fingerprint_bytes;
  if (in.size() < least) {
    in.fail(errc::bad_file, "it has ", in.size(), " bytes; ", least, " are the fewest");
  }
  in.read(h);
  if (!std::equal(magic, magic + sizeof(magic), h.magic)) {
    in.fail(errc::bad_file, "it is no saved session of nibble");
  }
  if (h.version != version) {
    in.fail(errc::unsupported, "it has version ", h.version, "; ", version, " is known");
  }
  std::string print(fingerprint_bytes, '\0');
  in.read(std::as_writable_bytes(std::span(print)));
  const kv_layout& layout = loaded->cache->layout();
  check_model(in, h, print, loaded->fingerprint, layout);
  check_numbers(in, h, loaded->plan.context, loaded->hp.n_vocab, layout.bytes_per_token());

  loaded->pages->release(sequence);
  loaded->pages->restore(sequence, static_cast<std::int32_t>(h.keep),
                         static_cast<std::int64_t>(h.dropped), h.cached);
  const auto pages = loaded->pages->pages_of(sequence, h.cached);
  std::uint64_t expected = least + std::uint64_t{4} * h.tokens + std::uint64_t{4} * h.logits;
  for (const auto& p : pages) expected += page_bytes(*loaded->cache, p);
  if (in.size() != expected) {
    in.fail(errc::bad_file, "it has ", in.size(), " bytes; ", expected, " were expected");
  }
  std::vector<token> ids(h.tokens);
  in.read(std::as_writable_bytes(std::span(ids)));
  for (const token id : ids) {
    if (id >= 0 && id < loaded->hp.n_vocab) continue;
    in.fail(errc::bad_file, "it has token ", id, "; the vocabulary has ", loaded->hp.n_vocab);
  }
  std::vector<float> last(h.logits);
  in.read(std::as_writable_bytes(std::span(last)));
  std::vector<std::byte> bytes;
  for (const auto& p : pages) {
    bytes.resize(page_bytes(*loaded->cache, p));
    in.read(std::span(bytes));
    loaded->cache->write_page(p.group, p.page, p.tokens, bytes.data());
  }
  in.check_end();
  tokens.assign(ids.begin(), ids.end());
  logits.assign(last.begin(), last.end());
  cached = h.cached;
  pending = h.pending < 0 ? std::nullopt : std::optional<token>(h.pending);
}

session session::load(const model& of, const std::filesystem::path& path,
                      const sampling_options& sampling, const session_options& options) {
  return with_memory_for("the saved session", [&] {
    auto made = std::make_unique<state>(of.state_, of.state_->make_sampler(sampling), options);
    made->load(path);
    return session(std::move(made));
  });
}

}  // namespace nibble::inline NIBBLE_ABI

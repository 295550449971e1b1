// Any bytes as a saved session: an error that names the file, or a session that goes on, and saved
// again is the same. Keys and values that are no numbers may give logits that are none.
#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <fuzz/session_model.hpp>
#include <nibble/base/fingerprint.hpp>
#include <optional>
#include <support/temporary_folder.hpp>

extern "C" std::size_t LLVMFuzzerMutate(std::uint8_t* data, std::size_t size, std::size_t most);

namespace {

using nibble::errc;
using nibble::session;

constexpr std::size_t header_bytes = 72, print_bytes = 16;

void check(bool truth) {
  if (!truth) std::abort();
}

const nibble::model& model() {
  static const nibble::model loaded = test::session_model();
  return loaded;
}

const std::filesystem::path& path() {
  static const test::temporary_folder folder;
  static const std::filesystem::path in_it = folder / "session";
  return in_it;
}

void write(const std::uint8_t* data, std::size_t size) {
  std::ofstream out(path(), std::ios::binary);
  out.write(reinterpret_cast<const char*>(data), static_cast<std::streamsize>(size));
  check(static_cast<bool>(out.flush()));
}

std::optional<session> load() {
  try {
    return session::load(model(), path(), {.seed = 1},
                         {.when_full = nibble::context_policy::slide, .keep = 5});
  } catch (const nibble::error& e) {
    check(e.file() == path().string() || e.code() == errc::out_of_memory);
    check(std::strlen(e.what()) < 2000);
    return std::nullopt;
  }
}

// There may be nothing to sample from, or no number.
void sample(session& s) {
  try {
    (void)s.sample();
  } catch (const nibble::error& e) {
    check(e.code() == errc::device || e.code() == errc::invalid_argument);
  }
}

void go_on(session& s) {
  const auto tokens = test::session_tokens(70);
  sample(s);
  s.append(std::span(tokens).first(1));
  sample(s);
  {
    session fork = s.fork();
    const auto n = static_cast<std::int32_t>(fork.tokens().size());
    fork.shift(n / 3, n / 4);
    fork.append(std::span(tokens).first(2));
    fork.truncate(static_cast<std::int32_t>(fork.tokens().size() / 2));
    fork.append(std::span(tokens).first(3));
  }
  s.append(tokens);
  s.append(tokens);
  check(s.tokens().size() <= 200);
}

}  // namespace

// Besides the fuzzer's own changes: other numbers at the beginning, and a fingerprint that fits.
extern "C" std::size_t LLVMFuzzerCustomMutator(std::uint8_t* data, std::size_t size,
                                               std::size_t most, unsigned seed) {
  std::minstd_rand random(seed);
  if (size < header_bytes + 2 * print_bytes || random() % 8 == 0) {
    return LLVMFuzzerMutate(data, size, most);
  }
  constexpr std::uint32_t numbers[] = {0,  1,   2,  3,   5,   63,         64,         65,  70,
                                       99, 100, 48, 128, 200, 0x7fffffff, 0xffffffff, 1000};
  for (unsigned n = 1 + random() % 4; n > 0; --n) {
    const std::uint32_t number = numbers[random() % std::size(numbers)];
    // whole numbers of the header, or anything
    const bool header = random() % 2 == 0;
    const std::size_t at =
        header ? random() % (header_bytes / 4) * 4 : random() % (size - print_bytes - 4);
    std::memcpy(data + at, &number, random() % 4 > 0 ? sizeof number : 1);
  }
  nibble::fingerprint print;
  print.add(std::as_bytes(std::span(data, size - print_bytes)));
  std::memcpy(data + size - print_bytes, print.text().data(), print_bytes);
  return size;
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  write(data, size);
  {
    auto s = load();
    if (!s) return 0;
    s->save(path());
    std::ifstream in(path(), std::ios::binary);
    const std::string again{std::istreambuf_iterator<char>(in), {}};
    check(again.size() == size && std::memcmp(again.data(), data, size) == 0);
    go_on(*s);
  }
  // nothing of it is left: both sessions of the plan have room
  const auto tokens = test::session_tokens(200);
  session a(model()), b(model());
  a.append(tokens);
  b.append(std::vector<nibble::token>(200, 1));
  return 0;
}

// Sessions that were saved: what comes back, and which files are refused.

#include <signal.h>
#include <sys/resource.h>

#include <cstring>
#include <functional>
#include <nibble/base/fingerprint.hpp>

#include "../model/tiny_model.hpp"
#include "allocations.hpp"
#include "engine_test.hpp"
#include "temporary_folder.hpp"

namespace {

using nibble::errc;
using nibble::kv_type;
using nibble::session;
using nibble::token;

constexpr std::size_t header_bytes = 72, print_bytes = 16, n_vocab = 48;

test::tiny_model tiny(const std::string& name) {
  test::tiny_model model(name);
  model.set("context_length", 512).set_vocabulary();
  if (name != "llama") model.set("attention.sliding_window", 70);
  return model.make_tensors();
}

nibble::model_options options_for(std::int32_t context = 300, kv_type type = kv_type::f16) {
  nibble::model_options options;
  options.cpu.threads = 1;
  options.plan.context = context;
  options.plan.key = options.plan.value = type;
  options.plan.sessions = 2;
  options.plan.batch = 48;
  return options;
}

nibble::model load(const test::tiny_model& tiny, const nibble::model_options& options) {
  const auto bytes = tiny.bytes();
  return nibble::model(nibble::gguf::file(bytes, "tiny.gguf"), options);
}

const nibble::model& llama() {
  static const nibble::model model = load(tiny("llama"), options_for());
  return model;
}

std::vector<token> some_tokens(std::size_t count, unsigned seed = 1) {
  std::minstd_rand random(seed);
  std::vector<token> tokens(count);
  for (token& id : tokens) id = static_cast<token>(5 + random() / 7 % 43);
  return tokens;
}

std::vector<token> held(const session& s) {
  return {s.tokens().begin(), s.tokens().end()};
}

using bytes = std::vector<char>;

bytes read_file(const std::filesystem::path& path) {
  auto in = test::open_for_reading(path);
  return {std::istreambuf_iterator<char>(in), {}};
}

void write_file(const std::filesystem::path& path, const bytes& data) {
  std::ofstream out(path, std::ios::binary);
  out.write(data.data(), static_cast<std::streamsize>(data.size()));
  REQUIRE(out.flush());
}

const nibble::sampling_options seeded{.temperature = 1, .top_k = 0, .top_p = 1, .seed = 3};

// The session goes on as one that was loaded from its file, token by token and bit by bit.
void check_round_trip(const nibble::model& model, session& s, const std::filesystem::path& path) {
  s.save(path);
  session loaded = session::load(model, path);
  CHECK(held(loaded) == held(s));
  // what was saved again is the same file
  const bytes first = read_file(path);
  loaded.save(path);
  CHECK(read_file(path) == first);
  for (const std::size_t count : {1, 1, 60, 1}) {
    const auto more = some_tokens(count, 9);
    const auto a = s.append(more), b = loaded.append(more);
    REQUIRE(std::equal(a.begin(), a.end(), b.begin(), b.end()));
    CHECK(held(loaded) == held(s));
  }
}

// The error of loading a file. Nothing of it may stay in the pool, and none asks for more memory
// than the file could need.
nibble::error refused(const nibble::model& model, const std::filesystem::path& path) {
  test::greatest_allocation = 0;
  const auto e = test::thrown([&] { session::load(model, path); });
  REQUIRE(test::greatest_allocation < 1 << 20);
  REQUIRE(std::string_view(e.what()).find(path.string()) != std::string_view::npos);
  REQUIRE(std::strlen(e.what()) < 1000);
  return e;
}

// No file may grow beyond so many bytes, as on a disk that is full.
class file_size_limit {
 public:
  explicit file_size_limit(rlim_t most) {
    ::signal(SIGXFSZ, SIG_IGN);
    ::getrlimit(RLIMIT_FSIZE, &before_);
    const rlimit now{most, before_.rlim_max};
    ::setrlimit(RLIMIT_FSIZE, &now);
  }
  ~file_size_limit() { ::setrlimit(RLIMIT_FSIZE, &before_); }

 private:
  rlimit before_{};
};

void check_whole_pool(const nibble::model& model) {
  std::vector<session> all;
  for (unsigned i = 0; i < 2; ++i) {
    all.emplace_back(model);
    all.back().append(some_tokens(static_cast<std::size_t>(model.plan().context), 1000 + i));
  }
}

// The numbers of a file's header, and where they stand.
enum field : std::size_t {
  page_tokens = 28,
  tokens_held = 32,
  tokens_cached = 36,
  tokens_kept = 40,
  token_pending = 44,
  tokens_dropped = 48,
  bytes_per_token = 56,
  logits_held = 64,
  reserved = 68,
  first_token = header_bytes + print_bytes
};

// With the fingerprint that belongs to it: only what the bytes mean is wrong.
bytes with_number(bytes data, field at, std::uint32_t number) {
  std::memcpy(data.data() + at, &number, sizeof number);
  nibble::fingerprint print;
  print.add(std::as_bytes(std::span(data).first(data.size() - print_bytes)));
  const std::string text = print.text();
  std::copy(text.begin(), text.end(), data.end() - print_bytes);
  return data;
}

}  // namespace

TEST_CASE("a loaded session goes on as the saved one") {
  const test::temporary_folder folder;
  const auto path = folder / "session";
  for (const char* const name : {"llama", "gemma3", "gpt-oss"}) {
    for (const nibble::kv_type_info& type : nibble::all_kv_types) {
      CAPTURE(name, type.name);
      const nibble::model model = load(tiny(name), options_for(300, type.type));
      for (const std::size_t count : {1, 63, 64, 65, 130, 200}) {
        CAPTURE(count);
        session s(model);
        s.append(some_tokens(count));
        check_round_trip(model, s, path);
      }
      check_whole_pool(model);
    }
  }
}

TEST_CASE("what a session went through before is saved with it") {
  const test::temporary_folder folder;
  const auto path = folder / "session";
  const std::pair<const char*, std::function<void(session&)>> pasts[] = {
      {"nothing", [](session&) {}},
      {"truncated", [](session& s) { s.append(some_tokens(150)), s.truncate(140); }},
      {"cut back behind its window",
       [](session& s) { s.append(some_tokens(220)), s.truncate(40); }},
      {"emptied", [](session& s) { s.append(some_tokens(150)), s.truncate(0); }},
      {"shifted", [](session& s) { s.append(some_tokens(150)), s.shift(5, 20); }},
      {"shifted in a page", [](session& s) { s.append(some_tokens(150)), s.shift(70, 10); }},
      {"shifted to the end", [](session& s) { s.append(some_tokens(133)), s.shift(7, 126); }},
      {"shifted twice",
       [](session& s) {
         s.append(some_tokens(200));
         s.shift(70, 70);
         s.append(some_tokens(30));
         s.shift(70, 40);
         s.append(some_tokens(1));
       }},
      {"a token is pending",
       [](session& s) { s.generate(some_tokens(80), {.max_tokens = 4}).text(); }},
      {"a token is pending after a shift", [](session& s) {
         s.append(some_tokens(150));
         s.shift(3, 64);
         s.generate(some_tokens(10), {.max_tokens = 4}).text();
       }}};
  for (const char* const name : {"llama", "gemma3", "gpt-oss"}) {
    const nibble::model model = load(tiny(name), options_for(300, kv_type::q8));
    for (const auto& [what, past] : pasts) {
      CAPTURE(name, what);
      session s(model, seeded);
      past(s);
      check_round_trip(model, s, path);
    }
    check_whole_pool(model);
  }
}

TEST_CASE("a generation goes on as if its session had not been saved") {
  const test::temporary_folder folder;
  const auto path = folder / "session";
  const nibble::sampling_options greedy{.temperature = 0};
  session whole(llama(), greedy);
  const std::string text = whole.generate(some_tokens(60), {.max_tokens = 40}).text();
  std::string parts;
  std::optional<session> s(std::in_place, llama(), greedy);
  for (int i = 0; i < 4; ++i) {
    parts +=
        s->generate(i == 0 ? some_tokens(60) : std::vector<token>{}, {.max_tokens = 10}).text();
    s->save(path);
    s.reset();
    s.emplace(session::load(llama(), path, greedy));
  }
  CHECK(parts == text);
  CHECK(held(*s) == held(whole));
}

TEST_CASE("a loaded session has its logits, and shares the beginning of no other") {
  const test::temporary_folder folder;
  const auto path = folder / "session";
  session s(llama(), {.temperature = 0});
  s.append(some_tokens(130));
  s.save(path);
  session loaded = session::load(llama(), path, {.temperature = 0});
  CHECK(loaded.sample() == s.sample());
  loaded.truncate(0);
  loaded.append(some_tokens(70));
  session empty(llama());
  empty.save(path);
  session nothing = session::load(llama(), path);
  CHECK(nothing.tokens().empty());
  test::check_error(test::thrown([&] { nothing.sample(); }), errc::invalid_argument, {"append"});
}

TEST_CASE("a file has what a session holds and not a byte more") {
  const test::temporary_folder folder;
  const auto path = folder / "session";
  const std::size_t per_token = llama().plan().kv.bytes_per_token();
  for (const std::size_t count : {0, 1, 64, 65, 200}) {
    session s(llama());
    if (count > 0) s.append(some_tokens(count));
    s.save(path);
    const std::size_t logits = count > 0 ? n_vocab : 0;
    CHECK(std::filesystem::file_size(path) ==
          header_bytes + 2 * print_bytes + 4 * count + 4 * logits + per_token * count);
  }
}

TEST_CASE("a file does not depend on who had the pages before") {
  const test::temporary_folder folder;
  const auto saved = [&](unsigned others, const std::function<void(session&)>& past) {
    const nibble::model model = load(tiny("gemma3"), options_for());
    for (unsigned i = 0; i < others; ++i) {  // all pages are full of something else
      std::vector<session> all;
      for (unsigned k = 0; k < 2; ++k) {
        all.emplace_back(model);
        all.back().append(some_tokens(300, 50 + 2 * i + k));
      }
    }
    session s(model);
    past(s);
    s.save(folder / "session");
    // and once more, from pages that loading has filled
    session loaded = session::load(model, folder / "session");
    loaded.append(some_tokens(20));
    loaded.save(folder / "session");
    return read_file(folder / "session");
  };
  const std::function<void(session&)> pasts[] = {
      [](session& s) { s.append(some_tokens(100)); },
      [](session& s) { s.append(some_tokens(133)), s.shift(7, 126); },
      [](session& s) { s.append(some_tokens(133)), s.shift(7, 100); },
      [](session& s) { s.append(some_tokens(140)), s.truncate(100); },
      [](session& s) { s.append(some_tokens(140)), s.truncate(100), s.append(some_tokens(1)); }};
  for (const auto& past : pasts) CHECK(saved(0, past) == saved(2, past));
}

TEST_CASE("files of other models, caches and contexts are refused") {
  const test::temporary_folder folder;
  const auto path = folder / "session";
  session s(llama());
  s.append(some_tokens(100));
  s.save(path);

  test::tiny_model changed = tiny("llama");
  changed.tensor("output_norm.weight").values[3] += 1;
  test::check_error(refused(load(changed, options_for()), path), errc::invalid_argument,
                    {"another model"});
  test::check_error(refused(load(tiny("gemma3"), options_for()), path), errc::invalid_argument,
                    {"another model"});
  for (const auto type : {kv_type::f32, kv_type::bf16, kv_type::q8, kv_type::q4_0}) {
    test::check_error(refused(load(tiny("llama"), options_for(300, type)), path),
                      errc::invalid_argument, {"f16 and f16", nibble::info_of(type).name});
  }
  auto options = options_for();
  options.plan.value = kv_type::q8;
  test::check_error(refused(load(tiny("llama"), options), path), errc::invalid_argument,
                    {"f16 and f16", "f16 and q8"});
  for (const auto& [key, value] : {std::pair{true, false}, {false, true}, {true, true}}) {
    options = options_for();
    options.plan.rotate_key = key;
    options.plan.rotate_value = value;
    test::check_error(refused(load(tiny("llama"), options), path), errc::invalid_argument,
                      {"rotated"});
  }
  const nibble::model shorter = load(tiny("llama"), options_for(99));
  test::check_error(refused(shorter, path), errc::invalid_argument, {"100 tokens", "holds 99"});
  check_whole_pool(shorter);
  // a context that just holds it, and one that is longer
  for (const std::int32_t context : {100, 400}) {
    const nibble::model other = load(tiny("llama"), options_for(context));
    CHECK(held(session::load(other, path)) == held(s));
  }
}

TEST_CASE("a pool without room for a saved session says so and stays as it is") {
  const test::temporary_folder folder;
  const auto path = folder / "session";
  const nibble::model model = load(tiny("gpt-oss"), options_for());
  {
    session s(model);
    s.append(some_tokens(290));
    s.save(path);
    session other(model);
    other.append(some_tokens(300, 2));
    test::check_error(test::thrown([&] { session::load(model, path); }), errc::out_of_memory,
                      {"no room", "10 of its 10 pages"});
    s.truncate(0);
    CHECK(session::load(model, path).tokens().size() == 290);
  }
  check_whole_pool(model);
}

TEST_CASE("a file that was cut short or is too long is refused, whatever the length") {
  const test::temporary_folder folder;
  const auto path = folder / "session";
  session s(llama());
  s.append(some_tokens(5));
  s.save(path);
  const bytes whole = read_file(path);
  for (std::size_t n = 0; n < whole.size(); ++n) {
    CAPTURE(n);
    write_file(path, {whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(n)});
    REQUIRE(refused(llama(), path).code() == errc::bad_file);
  }
  for (const std::size_t n : {1, 100, 100000}) {
    bytes longer = whole;
    longer.resize(whole.size() + n);
    write_file(path, longer);
    test::check_error(refused(llama(), path), errc::bad_file, {"bytes", "expected"});
  }
  write_file(path, whole);
  CHECK(held(session::load(llama(), path)) == held(s));
  s.truncate(0);
  check_whole_pool(llama());
}

TEST_CASE("a changed byte anywhere is noticed") {
  const test::temporary_folder folder;
  const auto path = folder / "session";
  const nibble::model model = load(tiny("gemma3"), options_for());
  {
    session s(model);
    s.append(some_tokens(90));
    s.shift(3, 10);
    s.append(some_tokens(20));
    s.save(path);
  }
  const bytes whole = read_file(path);
  const std::size_t dense = header_bytes + print_bytes + 40;
  for (std::size_t i = 0; i < whole.size(); i += i < dense || i + 40 > whole.size() ? 1 : 97) {
    for (const int flip : {1, 0x80, 0xff}) {
      CAPTURE(i, flip);
      bytes changed = whole;
      changed[i] = static_cast<char>(changed[i] ^ flip);
      write_file(path, changed);
      const errc code = refused(model, path).code();
      const bool expected = code == errc::bad_file || code == errc::invalid_argument ||
                            code == errc::unsupported || code == errc::out_of_memory;
      REQUIRE(expected);
    }
  }
  write_file(path, whole);
  CHECK(session::load(model, path).tokens().size() == 100);
  check_whole_pool(model);
}

TEST_CASE("numbers that cannot be are refused, also with the right fingerprint") {
  const test::temporary_folder folder;
  const auto path = folder / "session";
  {
    session s(llama());
    s.append(some_tokens(150));
    s.shift(3, 70);
    s.save(path);
  }
  const bytes whole = read_file(path);
  const std::pair<field, std::uint32_t> bad[] = {{page_tokens, 32},
                                                 {tokens_held, 79},
                                                 {tokens_held, 81},
                                                 {tokens_cached, 81},
                                                 {tokens_cached, 79},
                                                 {tokens_cached, 0},
                                                 {tokens_kept, 300},
                                                 {tokens_kept, 0xffffffff},
                                                 {tokens_kept, 81},
                                                 {tokens_kept, 80},
                                                 {token_pending, n_vocab},
                                                 {token_pending, 0xfffffffe},
                                                 {tokens_dropped, 64},
                                                 {field(tokens_dropped + 4), 0x100},
                                                 {bytes_per_token, 1},
                                                 {field(bytes_per_token + 4), 1},
                                                 {logits_held, 0},
                                                 {logits_held, 1},
                                                 {reserved, 1},
                                                 {first_token, n_vocab},
                                                 {first_token, 0xffffffff},
                                                 {field(first_token + 4 * 79), n_vocab}};
  for (const auto& [at, number] : bad) {
    CAPTURE(at, number);
    write_file(path, with_number(whole, at, number));
    CHECK(refused(llama(), path).code() == errc::bad_file);
  }
  write_file(path, with_number(whole, tokens_held, 301));
  CHECK(refused(llama(), path).code() == errc::invalid_argument);
  // a wide gap is no reason; what follows it is as far from it as before
  write_file(path, with_number(whole, field(tokens_dropped + 4), 0x7f));
  session s = session::load(llama(), path, {}, {.when_full = nibble::context_policy::slide});
  for (int i = 0; i < 20; ++i) s.append(some_tokens(30));
  CHECK(s.tokens().size() > 200);
}

TEST_CASE("files of other versions, and of other kinds, are refused") {
  const test::temporary_folder folder;
  const auto path = folder / "session";
  session s(llama());
  s.append(some_tokens(5));
  s.save(path);
  bytes data = read_file(path);
  data[8] = 2;
  write_file(path, data);
  test::check_error(refused(llama(), path), errc::unsupported, {"version 2"});
  data[0] = 'G';
  write_file(path, data);
  test::check_error(refused(llama(), path), errc::bad_file, {"no saved session"});
  CHECK(refused(llama(), folder / "missing").code() == errc::io);
  CHECK(refused(llama(), folder.path()).code() == errc::io);
  CHECK(refused(llama(), "/dev/null").code() == errc::io);
}

TEST_CASE("a session that the disk has no room for leaves the old file") {
  const test::temporary_folder folder;
  const auto path = folder / "session";
  session s(llama());
  s.append(some_tokens(5));
  s.save(path);
  const bytes before = read_file(path);
  s.append(some_tokens(100));
  {
    const file_size_limit limit(10000);
    test::check_error(test::thrown([&] { s.save(path); }), errc::io, {path.string(), "written"});
    test::thrown([&] { s.save(folder / "another"); });
  }
  CHECK(read_file(path) == before);
  CHECK(test::names_in(folder).size() == 1);
}

TEST_CASE("a session that cannot be written leaves nothing, and an old file as it was") {
  const test::temporary_folder folder;
  session s(llama());
  s.append(some_tokens(5));
  const auto missing = folder / "none" / "session";
  test::check_error(test::thrown([&] { s.save(missing); }), errc::io, {missing.string()});
  test::check_error(test::thrown([&] { s.save(folder.path()); }), errc::io,
                    {folder.path().string()});
  test::check_error(test::thrown([&] { s.save("/dev/full"); }), errc::io, {"/dev/full"});
  CHECK(test::names_in(folder).empty());
  s.save(folder / "session");
  s.append(some_tokens(5));
  s.save(folder / "session");  // in place of the old one
  CHECK(session::load(llama(), folder / "session").tokens().size() == 10);
  CHECK(test::names_in(folder).size() == 1);
}

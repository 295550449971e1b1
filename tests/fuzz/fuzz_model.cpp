// Any bytes as a model's file: an error that blames the file, or a model that runs. A few tokens go
// through it; weights that are no numbers may give logits that are none, and nothing worse.
#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <initializer_list>
#include <nibble/nibble.hpp>
#include <random>

extern "C" std::size_t LLVMFuzzerMutate(std::uint8_t* data, std::size_t size, std::size_t most);

namespace {

using nibble::errc;

constexpr std::uint64_t largest_model = 64 << 20;

// Runs `work`; an error must have one of these codes. Returns whether there was none.
template <typename F>
bool done(std::initializer_list<errc> codes, F&& work) {
  try {
    work();
    return true;
  } catch (const nibble::error& e) {
    // what the file says may stand in the sentence, but not much of it, and nothing that a terminal
    // obeys
    const std::string_view sentence = e.what();
    const bool fit =
        sentence.size() < 2000 && std::none_of(sentence.begin(), sentence.end(), [](char c) {
          return static_cast<unsigned char>(c) < 0x20 || c == 0x7f;
        });
    if (!fit) throw;
    for (const errc code : codes) {
      if (e.code() == code) return false;
    }
    throw;  // ends the program, which the fuzzer reports with the error's sentence
  }
}

nibble::cpu_options one_thread(nibble::activation_type activations) {
  nibble::cpu_options options;
  options.threads = 1;
  options.activations = activations;
  return options;
}

void use_vocabulary(const nibble::gguf::file& file) {
  if (!nibble::has_tokenizer(file)) return;
  const nibble::tokenizer tokenizer(file);
  const std::string_view text = "ab abcd\xc3\xa9 <|im_end|>\n\xff";
  for (const bool parse : {false, true}) {
    (void)tokenizer.decode(tokenizer.encode(text, {.parse_special = parse}));
  }
  const nibble::chat_template chat(tokenizer.chat_template());
  (void)chat.encode(tokenizer, std::vector<nibble::chat_message>{{"user", "ab"}});
}

void generate(const nibble::model& model) {
  nibble::session session(model, {.seed = 1});
  const std::vector<nibble::token> tokens = {0, model.hparams().n_vocab - 1};
  session.append(tokens);
  // there may be nothing to sample from
  done({errc::device}, [&] {
    const nibble::token next = session.sample();
    session.append({&next, 1});
    (void)session.sample();
  });
}

void run(const nibble::gguf::file& file, const nibble::plan_options& plan) {
  for (const auto type : {nibble::activation_type::float32, nibble::activation_type::int8}) {
    const nibble::model model(file, {.cpu = one_thread(type), .plan = plan, .progress = {}});
    generate(model);
  }
}

void use(const nibble::gguf::file& file) {
  static const auto device = nibble::make_cpu_backend(one_thread(nibble::activation_type::int8));
  const nibble::plan_options small{.context = 3, .batch = 2};
  const nibble::model_definition definition(file);
  const nibble::placement placed = nibble::plan(definition, *device, small);
  if (placed.devices[0].total() <= largest_model) run(file, small);
}

}  // namespace

// Besides the fuzzer's own changes: numbers that arithmetic stumbles over, at places of the file.
extern "C" std::size_t LLVMFuzzerCustomMutator(std::uint8_t* data, std::size_t size,
                                               std::size_t most, unsigned seed) {
  std::minstd_rand random(seed);
  if (size < 64 || random() % 2 == 0) return LLVMFuzzerMutate(data, size, most);
  constexpr std::uint32_t numbers[] = {
      0,           1,           0xffffffffu, 0x7fffffffu, 0x80000000u,  // integers
      0x7fc00000u, 0x7f800000u, 0xff800000u, 0x7f7fffffu, 0x00000001u,  // NaN, infinities, extremes
      0x3f800000u, 0xbf800000u, 0x7c007c00u, 0x7e00fe00u, 0x00010001u,  // 1, -1; the same in halves
      32,          64,          2,           3,           256};
  for (unsigned n = 1 + random() % 4; n > 0; --n) {
    const std::uint32_t number = numbers[random() % std::size(numbers)];
    // the metadata and the directory are as likely as the data
    const std::size_t reach = random() % 2 == 0 ? size : std::min<std::size_t>(size, 6000);
    const std::size_t at = random() % (reach - sizeof number);
    std::memcpy(data + at, &number, random() % 2 == 0 ? sizeof number : 1);
  }
  return size;
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto blames_file = {errc::bad_file, errc::unsupported, errc::out_of_memory};
  done(blames_file, [&] {
    const nibble::gguf::file file(std::as_bytes(std::span(data, size)), "fuzz");
    // a byte of the text may have no token
    done({errc::bad_file, errc::unsupported, errc::invalid_argument},
         [&] { use_vocabulary(file); });
    use(file);
  });
  return 0;
}

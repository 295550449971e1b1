// What nibble-synth writes: weights of every format, vocabularies of every family, models of every
// architecture that run; and what it refuses.

#include <cmath>
#include <map>
#include <nibble/formats/decode.hpp>
#include <nibble/nibble.hpp>

#include "run_model.hpp"
#include "synth_file.hpp"

namespace {

using strings = std::vector<std::string>;

strings operator+(strings a, const strings& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

// One layer and an embedding of more than one MiB in every format.
const strings small = {"--arch",        "qwen3", "--n-layer",      "1",   "--n-embd",  "256",
                       "--n-head",      "4",     "--n-ff",         "256", "--n-vocab", "24000",
                       "--head-length", "64",    "--no-vocabulary"};

struct moments {
  double mean, spread;
};

moments moments_of(const nibble::gguf::file& file, const std::string& name) {
  const auto* tensor = file.find_tensor(name);
  REQUIRE(tensor);
  const std::uint64_t columns = tensor->view.shape.columns(), rows = tensor->view.shape.rows();
  std::vector<float> row(columns);
  double sum = 0, squares = 0;
  for (std::uint64_t r = 0; r < rows; ++r) {
    nibble::decode_row(tensor->view.format, tensor->view.data + tensor->bytes / rows * r, columns,
                       row.data());
    for (const float x : row) {
      sum += x;
      squares += static_cast<double>(x) * x;
    }
  }
  const double n = static_cast<double>(columns * rows), mean = sum / n;
  return {mean, std::sqrt(squares / n - mean * mean)};
}

// The most that any block occurs in the tensor.
std::size_t most_equal_blocks(const nibble::gguf::file& file, const std::string& name) {
  const auto& tensor = *file.find_tensor(name);
  const std::size_t size = nibble::find_format_info(tensor.view.format)->block_bytes;
  std::map<std::string, std::size_t> count;
  std::size_t most = 0;
  const auto* bytes = reinterpret_cast<const char*>(tensor.view.data);
  for (std::size_t at = 0; at < tensor.bytes; at += size) {
    most = std::max(most, ++count[std::string(bytes + at, size)]);
  }
  return most;
}

std::string contents(const strings& arguments) {
  return test::read_file(test::synth_file(arguments).path());
}

}  // namespace

TEST_CASE("synth: weights of every format are balanced and have the wanted spread") {
  for (const nibble::format_info& format : nibble::format_infos) {
    INFO(format.name);
    const test::synth_file made(small + strings{"--pure", "--type", std::string(format.name)});
    const auto file = made.open();
    REQUIRE(file.find_tensor("token_embd.weight")->view.format == format.id);
    const double wanted = 3 / std::sqrt(256.0);
    const moments found = moments_of(file, "token_embd.weight");
    CHECK(found.spread > 0.97 * wanted);
    CHECK(found.spread < 1.03 * wanted);
    CHECK(std::fabs(found.mean) < 0.01 * wanted);
    CHECK(moments_of(file, "blk.0.ffn_down.weight").spread > 0.95 / 16);
    CHECK(moments_of(file, "blk.0.ffn_down.weight").spread < 1.05 / 16);
    // 256 values of f32 and the like are drawn from 4096
    if (format.block_size > 1) CHECK(most_equal_blocks(file, "token_embd.weight") == 1);
    const moments norm = moments_of(file, "blk.0.attn_norm.weight");
    CHECK(norm.mean > 0.9);
    CHECK(norm.mean < 1.1);
    CHECK(norm.spread < 0.2);
  }
}

// llama.cpp's files of these types have the same formats.
TEST_CASE("synth: mixes give tensors the formats that quantised files have") {
  const auto name_of = [](const nibble::gguf::file& file, const std::string& tensor) {
    const auto* found = file.find_tensor(tensor);
    REQUIRE(found);
    return nibble::format_name(found->view.format);
  };
  const test::synth_file llama(
      {"--preset", "llama-3.2-1b", "--type", "q4_k_m", "--header-only", "--no-vocabulary"});
  const auto file = llama.header();
  CHECK(name_of(file, "token_embd.weight") == "q6_k");  // the output matrix, too
  CHECK(name_of(file, "blk.0.attn_q.weight") == "q4_k");
  CHECK(name_of(file, "blk.0.attn_v.weight") == "q6_k");
  CHECK(name_of(file, "blk.2.attn_v.weight") == "q4_k");
  CHECK(name_of(file, "blk.15.ffn_down.weight") == "q6_k");
  CHECK(name_of(file, "blk.0.attn_norm.weight") == "f32");
  CHECK(name_of(file, "rope_freqs.weight") == "f32");
  CHECK(file.require<std::uint32_t>("general.file_type") == 15);

  // 2880 is no multiple of 256
  const test::temporary_folder folder;
  const auto made = test::run("synth", {"--preset", "gpt-oss-20b", "--type", "q4_k", "--pure",
                                        "--header-only", (folder / "x.gguf").string()});
  REQUIRE(made.status == 0);
  CHECK(test::contains(made.err, "instead of q4_k"));
  const nibble::gguf::file oss(folder / "x.gguf", {.header_only = true});
  CHECK(name_of(oss, "blk.0.ffn_down_exps.weight") == "q5_0");
  CHECK(name_of(oss, "blk.0.attn_output.weight") == "q4_k");
  CHECK(name_of(oss, "blk.0.ffn_gate_inp.weight") == "f32");
}

TEST_CASE("synth: a file depends on its seed, not on the threads") {
  for (const std::string type : {"q4_k", "f16"}) {
    const strings base = small + strings{"--type", type};
    const std::string one = contents(base + strings{"--threads", "1"});
    CHECK((contents(base + strings{"--threads", "5"}) == one));
    CHECK((contents(base + strings{"--seed", "0"}) == one));
    const std::string other = contents(base + strings{"--seed", "1"});
    CHECK(other.size() == one.size());
    CHECK((other != one));
  }
}

TEST_CASE("synth: small models of every architecture load and generate") {
  const strings common = {"--n-layer",   "2", "--n-embd",  "256",  "--n-head",  "4",
                          "--n-head-kv", "2", "--n-vocab", "1200", "--context", "256"};
  const strings dense = {"--n-ff", "512"}, window = {"--sliding-window", "32"};
  const strings experts = {"--n-expert", "4", "--n-expert-used", "2", "--n-ff-expert", "256"};
  const struct {
    std::string arch, type;
    strings more;
  } cases[] = {
      {"llama", "q4_k", dense},
      {"llama", "q4_0",
       experts + strings{"--rope-scaling", "llama3", "--rope-factor", "8",
                         "--rope-original-context", "64"}},
      {"mistral3", "q5_k", dense},
      {"qwen2", "iq4_xs", dense + strings{"--untied"}},
      {"qwen3", "q8_0", dense + strings{"--head-length", "128", "--tied"}},
      {"qwen3moe", "q6_k", experts},
      {"gemma3", "q4_1", dense + window + strings{"--n-layer", "6"}},
      {"gpt-oss", "mxfp4",
       experts + window +
           strings{"--rope-scaling", "yarn", "--rope-factor", "4", "--rope-original-context",
                   "64"}},
      {"bitnet", "tq2_0", dense},
  };
  for (const auto& c : cases) {
    INFO(c.arch << ' ' << c.type);
    // an option that is given twice is refused: those of the case come first
    strings arguments = {"--arch", c.arch, "--type", c.type};
    arguments = arguments + c.more;
    for (std::size_t i = 0; i < common.size(); i += 2) {
      if (std::find(c.more.begin(), c.more.end(), common[i]) == c.more.end()) {
        arguments = arguments + strings{common[i], common[i + 1]};
      }
    }
    const test::synth_file made(arguments);
    nibble::model_options options;
    options.plan.all_logits = true;
    const nibble::model model(made.open(), options);
    std::vector<nibble::token> tokens;
    for (nibble::token i = 0; i < 40; ++i) tokens.push_back((i * 37) % 1200);
    const auto logits = test::all_logits(model, tokens);
    double squares = 0;
    for (const float x : logits) {
      REQUIRE(std::isfinite(x));
      squares += static_cast<double>(x) * x;
    }
    const double spread = std::sqrt(squares / static_cast<double>(logits.size()));
    CHECK(spread > 0.5);
    CHECK(spread < 10);
    nibble::session session(model, {.temperature = 1, .seed = 1});
    const nibble::chat_message question[] = {{"user", "Who are you?"}};
    std::string answer;
    for (const std::string_view piece : session.reply(question, {.max_tokens = 8})) answer += piece;
    CHECK(answer != "");
  }
}

TEST_CASE("synth: vocabularies encode any text and give it back, in tokens of a sensible length") {
  const struct {
    std::string preset, eos;
    std::int32_t size, bos, eos_id;
    std::string markup;
    std::int32_t markup_id;
    std::string family;
  } cases[] = {
      {"llama-3.2-1b", "<|eot_id|>", 128256, 128000, 128009, "<|end_header_id|>", 128007,
       "llama-3"},
      {"qwen2.5-0.5b", "<|im_end|>", 151936, 151643, 151645, "<|im_start|>", 151644, "chatml"},
      {"gpt-oss-20b", "<|return|>", 201088, 199998, 200002, "<|start|>", 200006, "harmony"},
      {"gemma3-12b", "<eos>", 262208, 2, 1, "<start_of_turn>", 105, "gemma"},
  };
  const std::string english =
      "The government of a country is the people who decide how it works. In many countries these "
      "people are elected, and they answer to the citizens. Language models read text and predict "
      "what follows; they were trained on large collections of documents, e.g. books, websites and "
      "source code.";
  const std::string texts[] = {
      english,
      "",
      " two  spaces,\t\ttabs\n\n\nlines\r\n",
      "if (x >= 1234567) { return f(x)->y[0] + 3.14159; } // 100 %",
      "na\xc3\xafve caf\xc3\xa9, \xd0\x9f\xd1\x80\xd0\xb8\xd0\xb2\xd0\xb5\xd1\x82, "
      "\xe4\xbd\xa0\xe5\xa5\xbd\xe4\xb8\x96\xe7\x95\x8c, \xf0\x9f\x98\x80\xf0\x9f\x87\xa9",
      "<|im_start|> is only text here",
  };
  for (const auto& c : cases) {
    INFO(c.preset);
    const test::synth_file made({"--preset", c.preset, "--header-only"});
    const nibble::tokenizer tokens(made.header());
    CHECK(tokens.size() == c.size);
    CHECK(tokens.bos() == c.bos);
    CHECK(tokens.eos() == c.eos_id);
    CHECK(tokens.find(c.eos) == c.eos_id);
    CHECK(tokens.find(c.markup) == c.markup_id);
    CHECK(tokens.is_end_of_generation(c.eos_id));
    for (const std::string& text : texts) {
      INFO(text);
      const auto ids = tokens.encode(text, {.add_special = false});
      CHECK(tokens.decode(ids) == text);
    }
    const auto ids = tokens.encode(english, {.add_special = false});
    const double length = static_cast<double>(english.size()) / static_cast<double>(ids.size());
    CHECK(length > 3);
    CHECK(length < 5);
    const nibble::chat_template chat(tokens.chat_template());
    CHECK(chat.family() == c.family);
    const nibble::chat_message question[] = {{"user", "Hello"}};
    const auto prompt = chat.encode(tokens, question);
    CHECK(std::find(prompt.begin(), prompt.end(), c.markup_id) != prompt.end());
    CHECK(tokens.decode(prompt, {.special = true}).find("Hello") != std::string::npos);
  }
}

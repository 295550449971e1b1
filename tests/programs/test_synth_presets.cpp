// nibble-synth's presets beside what is published of the models: shapes from their weights' index,
// numbers of parameters as their pages state them. Written down apart from the program's table.

#include <map>
#include <nibble/model/arch.hpp>

#include "synth_file.hpp"

namespace {

struct published {
  std::string preset;
  std::size_t tensors;       // of a converted file, rope_freqs.weight included
  std::uint64_t parameters;  // without rope_freqs.weight
  // Row length first, as GGUF has it.
  std::map<std::string, std::vector<std::uint64_t>> shapes;
  std::vector<std::string> absent;
};

const published models[] = {
    {"qwen2.5-0.5b",
     290,
     494'032'768,
     {{"token_embd.weight", {896, 151936}},
      {"output_norm.weight", {896}},
      {"blk.0.attn_norm.weight", {896}},
      {"blk.0.attn_q.weight", {896, 896}},
      {"blk.0.attn_q.bias", {896}},
      {"blk.0.attn_k.weight", {896, 128}},
      {"blk.0.attn_v.bias", {128}},
      {"blk.23.attn_output.weight", {896, 896}},
      {"blk.23.ffn_gate.weight", {896, 4864}},
      {"blk.23.ffn_down.weight", {4864, 896}}},
     {"output.weight", "blk.24.attn_norm.weight", "blk.0.attn_output.bias", "rope_freqs.weight"}},
    {"llama-3.2-1b",
     147,
     1'235'814'400,
     {{"token_embd.weight", {2048, 128256}},
      {"rope_freqs.weight", {32}},
      {"blk.0.attn_q.weight", {2048, 2048}},
      {"blk.0.attn_k.weight", {2048, 512}},
      {"blk.15.attn_v.weight", {2048, 512}},
      {"blk.15.ffn_up.weight", {2048, 8192}},
      {"blk.15.ffn_down.weight", {8192, 2048}}},
     {"output.weight", "blk.16.attn_norm.weight", "blk.0.attn_q.bias"}},
    {"qwen3-4b",
     398,
     4'022'468'096,
     {{"token_embd.weight", {2560, 151936}},
      {"blk.0.attn_q.weight", {2560, 4096}},
      {"blk.0.attn_k.weight", {2560, 1024}},
      {"blk.0.attn_q_norm.weight", {128}},
      {"blk.35.attn_k_norm.weight", {128}},
      {"blk.35.attn_output.weight", {4096, 2560}},
      {"blk.35.ffn_gate.weight", {2560, 9728}},
      {"blk.35.ffn_down.weight", {9728, 2560}}},
     {"output.weight", "blk.36.attn_norm.weight", "blk.0.attn_q.bias"}},
    {"llama-3.1-8b",
     292,
     8'030'261'248,
     {{"token_embd.weight", {4096, 128256}},
      {"output.weight", {4096, 128256}},
      {"rope_freqs.weight", {64}},
      {"blk.31.attn_q.weight", {4096, 4096}},
      {"blk.31.attn_k.weight", {4096, 1024}},
      {"blk.31.ffn_gate.weight", {4096, 14336}},
      {"blk.31.ffn_down.weight", {14336, 4096}}},
     {"blk.32.attn_norm.weight"}},
    {"gemma3-12b",
     626,
     11'766'034'176,
     {{"token_embd.weight", {3840, 262208}},
      {"blk.0.attn_q.weight", {3840, 4096}},
      {"blk.0.attn_k.weight", {3840, 2048}},
      {"blk.0.attn_output.weight", {4096, 3840}},
      {"blk.0.attn_q_norm.weight", {256}},
      {"blk.47.post_attention_norm.weight", {3840}},
      {"blk.47.post_ffw_norm.weight", {3840}},
      {"blk.47.ffn_up.weight", {3840, 15360}}},
     {"output.weight", "blk.48.attn_norm.weight"}},
    {"qwen3-32b",
     707,
     32'762'123'264,
     {{"output.weight", {5120, 151936}},
      {"blk.63.attn_q.weight", {5120, 8192}},
      {"blk.63.attn_v.weight", {5120, 1024}},
      {"blk.63.attn_output.weight", {8192, 5120}},
      {"blk.63.ffn_down.weight", {25600, 5120}}},
     {"blk.64.attn_norm.weight"}},
    {"llama-3.1-70b",
     724,
     70'553'706'496,
     {{"output.weight", {8192, 128256}},
      {"blk.79.attn_q.weight", {8192, 8192}},
      {"blk.79.attn_k.weight", {8192, 1024}},
      {"blk.79.ffn_gate.weight", {8192, 28672}}},
     {"blk.80.attn_norm.weight"}},
    {"llama-3.1-405b",
     1138,
     405'853'388'800,
     {{"token_embd.weight", {16384, 128256}},
      {"output.weight", {16384, 128256}},
      {"rope_freqs.weight", {64}},
      {"blk.125.attn_norm.weight", {16384}},
      {"blk.125.attn_q.weight", {16384, 16384}},
      {"blk.125.attn_k.weight", {16384, 1024}},
      {"blk.125.ffn_up.weight", {16384, 53248}},
      {"blk.125.ffn_down.weight", {53248, 16384}}},
     {"blk.126.attn_norm.weight"}},
    {"qwen3-30b-a3b",
     579,
     30'532'122'624,
     {{"output.weight", {2048, 151936}},
      {"blk.47.attn_q.weight", {2048, 4096}},
      {"blk.47.attn_k.weight", {2048, 512}},
      {"blk.47.ffn_gate_inp.weight", {2048, 128}},
      {"blk.47.ffn_gate_exps.weight", {2048, 768, 128}},
      {"blk.47.ffn_down_exps.weight", {768, 2048, 128}}},
     {"blk.48.attn_norm.weight", "blk.0.ffn_gate.weight"}},
    {"qwen3-235b-a22b",
     1131,
     235'093'634'560,
     {{"output.weight", {4096, 151936}},
      {"blk.93.attn_q.weight", {4096, 8192}},
      {"blk.93.attn_k.weight", {4096, 512}},
      {"blk.93.ffn_gate_inp.weight", {4096, 128}},
      {"blk.93.ffn_up_exps.weight", {4096, 1536, 128}},
      {"blk.93.ffn_down_exps.weight", {1536, 4096, 128}}},
     {"blk.94.attn_norm.weight"}},
    {"gpt-oss-20b",
     459,
     20'914'757'184,
     {{"output.weight", {2880, 201088}},
      {"blk.23.attn_q.weight", {2880, 4096}},
      {"blk.23.attn_k.bias", {512}},
      {"blk.23.attn_output.weight", {4096, 2880}},
      {"blk.23.attn_output.bias", {2880}},
      {"blk.23.attn_sinks.weight", {64}},
      {"blk.23.post_attention_norm.weight", {2880}},
      {"blk.23.ffn_gate_inp.bias", {32}},
      {"blk.23.ffn_gate_exps.weight", {2880, 2880, 32}},
      {"blk.23.ffn_gate_exps.bias", {2880, 32}},
      {"blk.23.ffn_down_exps.bias", {2880, 32}}},
     {"blk.24.attn_norm.weight"}},
};

nibble::shape shape_of(const std::vector<std::uint64_t>& extents) {
  nibble::shape out;
  std::copy(extents.begin(), extents.end(), out.extent.begin());
  return out;
}

nibble::model_definition definition_of(const std::string& preset) {
  const test::synth_file made({"--preset", preset, "--header-only", "--no-vocabulary"});
  return nibble::model_definition(made.header());
}

}  // namespace

TEST_CASE("synth: presets have the published tensors") {
  for (const published& model : models) {
    INFO(model.preset);
    const test::synth_file made(
        {"--preset", model.preset, "--type", "q8_0", "--header-only", "--no-vocabulary"});
    const auto file = made.header();
    CHECK(file.tensors().size() == model.tensors);
    std::uint64_t parameters = 0;
    for (const auto& tensor : file.tensors()) {
      if (tensor.name != "rope_freqs.weight") parameters += tensor.view.shape.elements();
    }
    CHECK(parameters == model.parameters);
    for (const auto& [name, extents] : model.shapes) {
      INFO(name);
      const auto* tensor = file.find_tensor(name);
      REQUIRE(tensor);
      CHECK(to_text(tensor->view.shape) == to_text(shape_of(extents)));
    }
    for (const std::string& name : model.absent) {
      INFO(name);
      CHECK(file.find_tensor(name) == nullptr);
    }
    // the library reads it as a model, and knows every tensor
    const nibble::model_definition definition(file);
    CHECK(definition.unused.empty());
  }
}

TEST_CASE("synth: --list names the presets, an unknown one is refused with their names") {
  const std::string list = test::run_well("synth", {"--list"});
  const auto refused = test::run("synth", {"--preset", "llama-9", "x.gguf"});
  for (const published& model : models) {
    CHECK(test::contains(list, model.preset));
    CHECK(test::contains(refused.err, model.preset));
  }
  test::check_refused(refused, {"no preset 'llama-9'"}, 2);
}

TEST_CASE("synth: presets have the published numbers") {
  const auto llama = definition_of("llama-3.1-8b");
  CHECK(llama.hp.n_ctx_train == 131072);
  CHECK(llama.hp.n_vocab == 128256);
  CHECK(llama.hp.norm_epsilon == 1e-5f);
  CHECK(llama.hp.layers[0].rope_base == 500000);
  CHECK(llama.hp.rope.kind == nibble::rope_scaling_kind::none);

  const auto gemma = definition_of("gemma3-12b");
  CHECK(gemma.hp.n_ctx_train == 131072);
  CHECK(gemma.hp.rope.kind == nibble::rope_scaling_kind::linear);
  CHECK(gemma.hp.rope.factor == 8);
  CHECK(gemma.hp.layers[4].window == 1024);
  CHECK(gemma.hp.layers[5].window == 0);
  CHECK(gemma.hp.layers[5].rope_base == 1e6);

  const auto oss = definition_of("gpt-oss-20b");
  CHECK(oss.hp.rope.kind == nibble::rope_scaling_kind::yarn);
  CHECK(oss.hp.rope.factor == 32);
  CHECK(oss.hp.rope.original_context == 4096);
  CHECK(oss.hp.layers[0].window == 128);
  CHECK(oss.hp.layers[1].window == 0);
  CHECK(oss.hp.n_expert == 32);
  CHECK(oss.hp.n_expert_used == 4);
  CHECK(oss.hp.layers[0].rope_base == 150000);

  const auto moe = definition_of("qwen3-235b-a22b");
  CHECK(moe.hp.n_expert_used == 8);
  CHECK(moe.hp.n_ctx_train == 40960);
  CHECK(moe.hp.norm_epsilon == 1e-6f);
  CHECK(definition_of("qwen2.5-0.5b").hp.n_ctx_train == 32768);
}

// From the file of Llama 3.1 8B: the first 29 frequencies stay, the last 29 are divided by 8.
TEST_CASE("synth: factors of the rotary frequencies are those of Llama 3.1") {
  const test::synth_file made({"--preset", "llama-3.1-8b", "--no-vocabulary", "--n-layer", "1",
                               "--n-embd", "256", "--n-ff", "256", "--n-vocab", "300"});
  const auto factors = nibble::model_definition(made.open()).rope_factors;
  REQUIRE(factors.size() == 64);
  for (std::size_t i = 0; i < 64; ++i) {
    INFO(i);
    CHECK(factors[i] >= 1);
    CHECK(factors[i] <= 8);
    if (i > 0) CHECK(factors[i] >= factors[i - 1]);
    if (i < 29) CHECK(factors[i] == 1);
    if (i >= 35) CHECK(factors[i] == 8);
  }
  CHECK(factors[29] > 1);
  CHECK(factors[34] < 8);
}

TEST_CASE("inspect: the header of the greatest preset says that its data is absent") {
  const test::synth_file made({"--preset", "llama-3.1-405b", "--type", "q4_0", "--header-only"});
  const std::string text = test::run_well("inspect", {made.path()});
  CHECK(test::contains(text, "Tensor data absent: "));
  CHECK(test::contains(text, "this is a header only"));
  CHECK(test::contains(text, "1138"));
  // four bits and a half for each weight but those of the output (q6_k), the norms and the factors
  const std::uint64_t output = 16384ull * 128256;
  const auto expected = (405'853'388'800 - output) / 32 * 18 + output / 256 * 210;
  const auto absent = made.header().absent_bytes();
  CHECK(absent > expected);
  CHECK(absent < expected + (32 << 20));
  CHECK(test::contains(text, std::to_string(absent)));
  test::check_refused(test::run("generate", {made.path(), "Once"}),
                      {made.path(), "the header only"}, 1);
}

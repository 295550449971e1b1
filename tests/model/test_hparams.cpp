// Hyper-parameters, each wrong in turn: the error names the key, what it holds and what would do.
#include <limits>

#include "errors.hpp"
#include "tiny_model.hpp"

namespace {

using nibble::errc;
using strings = std::vector<std::string>;

constexpr double not_a_number = std::numeric_limits<double>::quiet_NaN();
constexpr double infinity = std::numeric_limits<double>::infinity();

nibble::error refused(const test::tiny_model& model) {
  return test::thrown([&] {
    const auto bytes = model.bytes();
    nibble::model_definition(nibble::gguf::file(bytes, "tiny.gguf"));
  });
}

nibble::hparams hparams_of(const test::tiny_model& model) {
  const auto bytes = model.bytes();
  return nibble::model_definition(nibble::gguf::file(bytes, "tiny.gguf")).hp;
}

void check_names(const test::tiny_model& model, const nibble::error& e, const std::string& name,
                 std::initializer_list<std::string_view> parts) {
  CAPTURE(name);
  test::check_error(e, errc::bad_file, {model.key(name), "tiny.gguf"});
  test::check_error(e, errc::bad_file, parts);
}

constexpr const char* whole_numbers[] = {"block_count",
                                         "context_length",
                                         "embedding_length",
                                         "vocab_size",
                                         "feed_forward_length",
                                         "attention.head_count",
                                         "attention.key_length",
                                         "attention.head_count_kv",
                                         "expert_count",
                                         "expert_feed_forward_length",
                                         "expert_used_count",
                                         "attention.value_length",
                                         "rope.dimension_count",
                                         "attention.sliding_window",
                                         "rope.scaling.original_context_length"};

constexpr const char* numbers[] = {"attention.layer_norm_rms_epsilon",
                                   "attention.temperature_scale",
                                   "attn_logit_softcapping",
                                   "final_logit_softcapping",
                                   "rope.freq_base",
                                   "rope.scale_linear",
                                   "rope.scaling.factor",
                                   "rope.scaling.attn_factor",
                                   "rope.scaling.yarn_beta_fast",
                                   "rope.scaling.yarn_beta_slow",
                                   "rope.scaling.yarn_log_multiplier"};

test::tiny_model with_experts() {
  return test::tiny_model("llama").set_experts(4, 2).make_tensors();
}

}  // namespace

TEST_CASE("keys that a model cannot do without are named when they are missing") {
  for (const std::string& name : test::architectures()) {
    const auto whole = test::tiny_model(name).make_tensors();
    for (const char* key : {"block_count", "context_length", "embedding_length", "vocab_size",
                            "attention.head_count", "attention.layer_norm_rms_epsilon"}) {
      auto model = whole;
      model.erase(key);
      check_names(model, refused(model), key, {"missing"});
    }
  }
  auto dense = test::tiny_model("llama").make_tensors();
  dense.erase("feed_forward_length");
  check_names(dense, refused(dense), "feed_forward_length", {"missing"});
  auto routed = with_experts();
  routed.erase("expert_used_count");
  check_names(routed, refused(routed), "expert_used_count", {"missing"});
  for (const char* name : {"qwen3moe", "gpt-oss"}) {
    auto model = test::tiny_model(name).make_tensors();
    model.erase("expert_count");
    check_names(model, refused(model), "expert_count", {"absent or 0", "experts in every layer"});
  }
  auto windowed = test::tiny_model("gpt-oss").make_tensors();
  windowed.erase("attention.sliding_window");
  check_names(windowed, refused(windowed), "attention.sliding_window", {"absent or 0", "window"});
}

TEST_CASE("keys that may be absent take their values from others") {
  auto model = test::tiny_model("llama").make_tensors();
  model.erase("attention.head_count_kv").make_tensors();
  model.erase("rope.freq_base");
  const auto hp = hparams_of(model);
  CHECK(hp.layers[1].n_head_kv == 4);
  CHECK(hp.layers[1].rope_base == 10000);
  CHECK((hp.key_length == 8 && hp.value_length == 8 && hp.n_rot == 8));
  CHECK(hp.rope.kind == nibble::rope_scaling_kind::none);
  auto experts = with_experts();  // their length alone
  experts.erase("feed_forward_length");
  CHECK(hparams_of(experts).n_ff_expert == 32);
  experts.erase("expert_feed_forward_length").set("feed_forward_length", 32);
  CHECK(hparams_of(experts).n_ff_expert == 32);
}

TEST_CASE("whole numbers out of range are named with their value and the range") {
  for (const char* name : whole_numbers) {
    const std::string_view key = name;
    const bool may_be_zero =
        key == "expert_count" || key == "rope.dimension_count" || key == "attention.sliding_window";
    for (const std::int64_t value : {std::int64_t{0}, std::int64_t{-1}, std::int64_t{1} << 40,
                                     std::numeric_limits<std::int64_t>::min()}) {
      if (value == 0 && may_be_zero) continue;
      auto model = with_experts();
      model.set(name, value);
      check_names(model, refused(model), name, {std::to_string(value), "between"});
    }
    auto model = with_experts();
    model.set(name, ~std::uint64_t{0});
    check_names(model, refused(model), name, {"18446744073709551615"});
  }
}

TEST_CASE("numbers out of range are named with their value and the range") {
  for (const char* name : numbers) {
    for (const double value : {-1.0, -1e-3, 1e13, 1e300, not_a_number, infinity, -infinity}) {
      auto model = test::tiny_model("mistral3").make_tensors();
      model.set(name, value);
      check_names(model, refused(model), name, {"between"});
    }
  }
  for (const char* name : {"rope.freq_base", "rope.scaling.attn_factor",
                           "rope.scaling.yarn_beta_fast", "rope.scaling.yarn_beta_slow"}) {
    for (const double value : {0.0, 1e-30}) {
      auto model = test::tiny_model("mistral3").make_tensors();
      model.set(name, value);
      check_names(model, refused(model), name, {"between"});
    }
  }
  // a logarithm of the base divides
  auto model = test::tiny_model("mistral3").make_tensors();
  model.set("rope.freq_base", 1.0f);
  check_names(model, refused(model), "rope.freq_base", {" 1;", "between 2"});
}

TEST_CASE("keys of another type are named with both types") {
  for (const char* name : whole_numbers) {
    auto model = with_experts();
    const std::string_view key = name;
    const bool per_layer = key.starts_with("attention.head_count") || key == "feed_forward_length";
    model.set(name, 2.0f);
    check_names(model, refused(model), name, {"f32", "i64"});
    model.set(name, "2");
    check_names(model, refused(model), name, {"string", "i64"});
    model.set(name, strings{"2", "2"});
    check_names(model, refused(model), name, {"array of string", "i64"});
    if (per_layer) continue;
    model.set(name, std::vector<std::int32_t>{2, 2});
    check_names(model, refused(model), name, {"array of i32", "i64"});
  }
  for (const char* name : numbers) {
    auto model = test::tiny_model("mistral3").make_tensors();
    model.set(name, 1);
    check_names(model, refused(model), name, {"i32", "f64"});
    model.set(name, true);
    check_names(model, refused(model), name, {"bool", "f64"});
  }
  auto model = test::tiny_model("llama").make_tensors();
  model.set("rope.scaling.type", 2);
  check_names(model, refused(model), "rope.scaling.type", {"i32", "string"});
}

TEST_CASE("heads must be a multiple of key/value heads, in every layer") {
  auto model = test::tiny_model("llama").make_tensors();
  model.set("attention.head_count_kv", 3);
  test::check_error(refused(model), errc::bad_file,
                    {"layer 0", "4 heads", "3 key/value", "multiple"});
  model.set("attention.head_count_kv", 8);
  test::check_error(refused(model), errc::bad_file, {"layer 0", "4 heads", "8 key/value"});
  model.set("attention.head_count_kv", std::vector<std::int32_t>{2, 3});
  test::check_error(refused(model), errc::bad_file, {"layer 1", "4 heads", "3 key/value"});
}

TEST_CASE("numbers may differ from layer to layer, one for each") {
  auto model = test::tiny_model("llama");
  model.set("attention.head_count_kv", std::vector<std::int32_t>{2, 1});
  model.set("feed_forward_length", std::vector<std::uint32_t>{64, 96, 7}).make_tensors();
  const auto hp = hparams_of(model);
  CHECK((hp.layers[0].n_head_kv == 2 && hp.layers[1].n_head_kv == 1));
  CHECK((hp.layers[0].n_ff == 64 && hp.layers[1].n_ff == 96));
  for (const char* name :
       {"attention.head_count", "attention.head_count_kv", "feed_forward_length"}) {
    for (const std::size_t count : {0u, 1u}) {
      auto shorter = model;
      shorter.set(name, std::vector<std::int32_t>(count, 4));
      check_names(shorter, refused(shorter), name,
                  {std::to_string(count) + " entries", "2 layers"});
    }
    for (const std::int32_t bad : {0, -4}) {
      auto wrong = model;
      wrong.set(name, std::vector<std::int32_t>{4, bad});
      check_names(wrong, refused(wrong), name, {std::to_string(bad), "between"});
    }
  }
}

TEST_CASE("head lengths must follow from the width or be stated") {
  auto model = test::tiny_model("llama").make_tensors();
  model.set("attention.head_count", 5).set("attention.head_count_kv", 5);
  check_names(model, refused(model), "attention.key_length", {"32", "5 heads", "absent"});
  model.set("attention.key_length", 8);
  check_names(model, refused(model), "attention.value_length", {"32", "5 heads", "absent"});
  model.set("attention.value_length", 4).make_tensors();
  CHECK(hparams_of(model).value_length == 4);
  // more heads than columns: none would be left for each
  model.set("attention.head_count", 64).set("attention.head_count_kv", 64);
  model.erase("attention.value_length");
  check_names(model, refused(model), "attention.value_length", {"32", "64 heads", "absent"});
  model.set("embedding_length", 1 << 20)
      .set("attention.head_count", 1)
      .erase("attention.key_length");
  model.set("attention.head_count_kv", 1);
  check_names(model, refused(model), "attention.key_length", {"1048576", "16384"});
}

TEST_CASE("rotated dimensions are even and within the head") {
  auto model = test::tiny_model("llama").make_tensors();
  model.set("rope.dimension_count", 6);
  CHECK(hparams_of(model).n_rot == 6);
  model.set("rope.dimension_count", 0);
  CHECK(hparams_of(model).n_rot == 0);
  for (const int odd : {1, 7}) {
    model.set("rope.dimension_count", odd);
    check_names(model, refused(model), "rope.dimension_count", {std::to_string(odd), "even"});
  }
  model.set("rope.dimension_count", 10);
  check_names(model, refused(model), "rope.dimension_count", {"10", "between 0 and 8"});
  model.erase("rope.dimension_count").set("attention.key_length", 7);
  check_names(model, refused(model), "rope.dimension_count", {"7", "even"});
}

TEST_CASE("experts: as many are used as there are, at most") {
  auto model = with_experts();
  model.set("expert_used_count", 5);
  check_names(model, refused(model), "expert_used_count", {" 5;", "between 1 and 4"});
  model.set("expert_used_count", 4);
  CHECK(hparams_of(model).n_expert_used == 4);
  model.set("expert_count", 0).make_tensors();
  CHECK(hparams_of(model).n_expert == 0);
}

TEST_CASE("rope scaling: kinds by name, the old key, and what both cannot be") {
  auto model = test::tiny_model("llama").make_tensors();
  using nibble::rope_scaling_kind;
  model.set("rope.scaling.type", "longrope");
  test::check_error(refused(model), errc::unsupported,
                    {"llama.rope.scaling.type", "'longrope'", "none, linear and yarn"});
  model.set("rope.scaling.type", std::string(100000, '\r'));
  const auto odd = refused(model);
  test::check_error(odd, errc::unsupported, {"'\\x0d\\x0d", "...'"});
  CHECK(std::string_view(odd.what()).size() < 1000);
  model.set("rope.scaling.type", "linear").set("rope.scaling.factor", 4.0f);
  CHECK(hparams_of(model).rope.kind == rope_scaling_kind::linear);
  model.set("rope.scaling.type", "none");
  CHECK(hparams_of(model).rope.kind == rope_scaling_kind::none);
  model.erase("rope.scaling.type").erase("rope.scaling.factor").set("rope.scale_linear", 2.0f);
  CHECK(hparams_of(model).rope.kind == rope_scaling_kind::linear);
  CHECK(hparams_of(model).rope.factor == 2);
  model.set("rope.scale_linear", -2.0f);
  check_names(model, refused(model), "rope.scale_linear", {"-2", "between"});
  model.set("rope.scale_linear", 0.0f);
  CHECK(hparams_of(model).rope.factor == 1);
  model.set("rope.scaling.factor", 8.0).set("rope.scale_linear", 2.0f);
  CHECK(hparams_of(model).rope.factor == 8);
  model.set("rope.scaling.factor", not_a_number);
  check_names(model, refused(model), "rope.scaling.factor", {"nan", "between"});
}

TEST_CASE("the temperature of queries counts in original contexts") {
  auto model = test::tiny_model("mistral3").make_tensors();
  CHECK(hparams_of(model).temperature_period == 16);
  model.erase("rope.scaling.original_context_length");
  CHECK(hparams_of(model).temperature_period == 64);  // of the training
  model.erase("attention.temperature_scale");
  CHECK(hparams_of(model).temperature_scale == 0);
}

TEST_CASE("windows: which layers have them") {
  const auto windows = [](const test::tiny_model& model) {
    std::vector<std::int32_t> all;
    for (const auto& layer : hparams_of(model).layers) all.push_back(layer.window);
    return all;
  };
  auto gemma = test::tiny_model("gemma3").make_tensors();
  CHECK(windows(gemma) == std::vector<std::int32_t>{8, 8, 8, 8, 8, 0});
  gemma.set("attention.sliding_window", 0);
  CHECK(windows(gemma) == std::vector<std::int32_t>(6, 0));
  gemma.set("attention.sliding_window", 1000000);  // longer than any context
  CHECK(windows(gemma)[0] == 1000000);
  CHECK(windows(test::tiny_model("gpt-oss").make_tensors()) == std::vector<std::int32_t>{8, 0});
}

TEST_CASE("bitnet's activation is one of those that are known") {
  auto model = test::tiny_model("bitnet").make_tensors();
  CHECK(hparams_of(model).ffn_gate == nibble::gate_kind::silu);
  model.set("hidden_activation", "relu2");
  CHECK(hparams_of(model).ffn_gate == nibble::gate_kind::relu_squared);
  model.set("hidden_activation", "swish9");
  test::check_error(refused(model), errc::unsupported,
                    {"bitnet.hidden_activation", "'swish9'", "silu", "relu2"});
}

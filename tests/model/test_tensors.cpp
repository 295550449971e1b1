// Loading tiny models of every architecture, whole and with one tensor wrong.
#include <set>

#include "errors.hpp"
#include "tiny_logits.hpp"

namespace {

using nibble::errc;

nibble::model_definition define(const test::tiny_model& model) {
  const auto bytes = model.bytes();
  const nibble::gguf::file file(bytes, "tiny.gguf");
  nibble::model_definition definition(file);
  // what the file owns goes with it
  for (auto& need : definition.needs) {
    if (need.found) need.found = nullptr;
  }
  return definition;
}

std::vector<float> logits_of(const test::tiny_model& model) {
  return test::logits_of(model, nibble::activation_type::float32);
}

bool finite(const std::vector<float>& values) {
  return std::all_of(values.begin(), values.end(), [](float v) { return std::isfinite(v); });
}

std::string shape_text(std::initializer_list<std::uint64_t> extents) {
  nibble::shape s;
  std::copy(extents.begin(), extents.end(), s.extent.begin());
  return nibble::to_text(s);
}

// What the files of each architecture must have, written down from files that are in use.
std::set<std::string> names_in_use(const std::string& architecture) {
  const std::set<std::string> common = {"token_embd.weight",       "output_norm.weight",
                                        "blk.0.attn_norm.weight",  "blk.0.attn_q.weight",
                                        "blk.0.attn_k.weight",     "blk.0.attn_v.weight",
                                        "blk.0.attn_output.weight"};
  const std::set<std::string> ffn_norm = {"blk.0.ffn_norm.weight"};
  const std::set<std::string> dense = {"blk.0.ffn_norm.weight", "blk.0.ffn_gate.weight",
                                       "blk.0.ffn_up.weight", "blk.0.ffn_down.weight"};
  const std::set<std::string> experts = {"blk.0.ffn_gate_inp.weight", "blk.0.ffn_gate_exps.weight",
                                         "blk.0.ffn_up_exps.weight", "blk.0.ffn_down_exps.weight"};
  const std::set<std::string> qkv_bias = {"blk.0.attn_q.bias", "blk.0.attn_k.bias",
                                          "blk.0.attn_v.bias"};
  const std::set<std::string> head_norms = {"blk.0.attn_q_norm.weight", "blk.0.attn_k_norm.weight"};
  const std::set<std::string> post_norms = {"blk.0.post_attention_norm.weight",
                                            "blk.0.post_ffw_norm.weight"};
  const std::set<std::string> sub_norms = {"blk.0.attn_sub_norm.weight",
                                           "blk.0.ffn_sub_norm.weight"};
  const std::set<std::string> gpt_oss = {
      "blk.0.post_attention_norm.weight", "blk.0.attn_sinks.weight", "blk.0.ffn_gate_inp.bias",
      "blk.0.ffn_gate_exps.bias",         "blk.0.ffn_up_exps.bias",  "blk.0.ffn_down_exps.bias"};
  using sets = std::vector<std::set<std::string>>;
  const std::map<std::string, sets> more = {{"llama", {dense}},
                                            {"mistral3", {dense}},
                                            {"qwen2", {dense, qkv_bias}},
                                            {"qwen3", {dense, head_norms}},
                                            {"qwen3moe", {ffn_norm, experts, head_norms}},
                                            {"gemma3", {dense, head_norms, post_norms}},
                                            {"gpt-oss", {experts, qkv_bias, gpt_oss}},
                                            {"bitnet", {dense, sub_norms}}};
  std::set<std::string> all = common;
  for (const auto& names : more.at(architecture)) all.insert(names.begin(), names.end());
  return all;
}

}  // namespace

TEST_CASE("a tiny model of every architecture loads and gives logits") {
  REQUIRE(test::architectures().size() == 8);
  for (const std::string& name : test::architectures()) {
    for (const bool optional : {false, true}) {
      CAPTURE(name, optional);
      const auto model = test::tiny_model(name).make_tensors({.optional = optional});
      const auto definition = define(model);
      CHECK(definition.unused.empty());
      const auto logits = logits_of(model);
      CHECK(logits.size() == 8 * 48);
      CHECK(finite(logits));
      CHECK(*std::max_element(logits.begin(), logits.end()) > 0.1f);
    }
  }
}

TEST_CASE("architectures need the tensors that files in use have") {
  for (const std::string& name : test::architectures()) {
    CAPTURE(name);
    const auto model = test::tiny_model(name).make_tensors();
    std::set<std::string> found;
    for (const auto& t : model.tensors) {
      const bool other_layer = t.name.starts_with("blk.") && !t.name.starts_with("blk.0.");
      if (!other_layer) found.insert(t.name);
    }
    CHECK(found == names_in_use(name));
  }
}

TEST_CASE("an unknown architecture is named, and the known ones listed") {
  auto model = test::tiny_model("llama").make_tensors();
  model.set_global("general.architecture", "llama9");
  const auto e = test::thrown([&] { define(model); });
  test::check_error(e, errc::unsupported, {"'llama9'", "llama", "qwen3moe", "gpt-oss", "bitnet"});
  // not much of what the file says, and nothing that a terminal would obey
  model.set_global("general.architecture", "a\n\x1b[2J" + std::string(100000, 'a'));
  const auto odd = test::thrown([&] { define(model); });
  test::check_error(odd, errc::unsupported, {"'a\\x0a\\x1b[2Jaaa", "aaa...'"});
  CHECK(std::string_view(odd.what()).size() < 500);
  model.set_global("general.architecture", std::int32_t{3});
  test::check_error(test::thrown([&] { define(model); }), errc::bad_file,
                    {"general.architecture", "i32", "string"});
  const auto nothing = nibble::gguf::writer().to_bytes();
  test::check_error(
      test::thrown([&] { nibble::model_definition(nibble::gguf::file(nothing, "empty.gguf")); }),
      errc::bad_file, {"general.architecture", "missing", "empty.gguf"});
}

TEST_CASE("a missing tensor is named with the shape that was expected") {
  for (const std::string& name : test::architectures()) {
    const auto whole = test::tiny_model(name).make_tensors();
    for (std::size_t i = 0; i < whole.tensors.size(); ++i) {
      auto model = whole;
      const test::tiny_tensor missing = whole.tensors[i];
      model.remove(missing.name);
      CAPTURE(name, missing.name);
      const auto e = test::thrown([&] { define(model); });
      test::check_error(e, errc::bad_file,
                        {missing.name, "missing", nibble::to_text(missing.shape), "tiny.gguf"});
      CHECK(e.tensor() == missing.name);
    }
  }
}

TEST_CASE("a tensor of another shape is named with both shapes") {
  for (const std::string& name : test::architectures()) {
    const auto whole = test::tiny_model(name).make_tensors({.optional = true});
    for (const auto& right : whole.tensors) {
      for (const int extent : {0, 1, 2, 3}) {
        auto model = whole;
        auto& t = model.tensor(right.name);
        ++t.shape.extent[static_cast<std::size_t>(extent)];
        t.values.resize(t.shape.elements());
        CAPTURE(name, right.name, extent);
        const auto e = test::thrown([&] { define(model); });
        test::check_error(e, errc::bad_file,
                          {right.name, nibble::to_text(t.shape), nibble::to_text(right.shape)});
        CHECK(e.tensor() == right.name);
        CHECK(e.offset().has_value());
      }
    }
  }
}

TEST_CASE("a tensor of a type that nibble does not compute with is named with its type") {
  for (const std::string& name : test::architectures()) {
    auto whole = test::tiny_model(name).make_tensors({.optional = true});
    whole.add("rope_freqs.weight", {{name == "llama" ? 4u : 8u, 1, 1, 1}});
    for (const auto& right : whole.tensors) {
      auto model = whole;
      model.tensor(right.name).format = test::i32;
      CAPTURE(name, right.name);
      const auto e = test::thrown([&] { define(model); });
      test::check_error(e, errc::unsupported, {right.name, "i32", "q4_k", "f16"});
      CHECK(e.tensor() == right.name);
    }
  }
}

TEST_CASE("an embedding and a vocabulary of different sizes are named with both") {
  auto model = test::tiny_model("llama").make_tensors({.optional = true});
  model.set("vocab_size", 50);
  const std::string found = shape_text({32, 48}), wanted = shape_text({32, 50});
  test::check_error(test::thrown([&] { define(model); }), errc::bad_file,
                    {"token_embd.weight", found, wanted});
  model.set("vocab_size", 48).set_vocabulary();
  CHECK(define(model).hp.n_vocab == 48);
  model.set_global("tokenizer.ggml.tokens", std::vector<std::string>(47, "a"));
  test::check_error(test::thrown([&] { define(model); }), errc::bad_file,
                    {"token_embd.weight", found, shape_text({32, 47})});
}

TEST_CASE("without an output matrix the embedding is the output matrix") {
  for (const std::string& name : test::architectures()) {
    CAPTURE(name);
    auto tied = test::tiny_model(name).make_tensors();
    auto untied = tied;
    const auto embedding = tied.tensor("token_embd.weight");
    untied.add("output.weight", embedding.shape).values = embedding.values;
    CHECK(logits_of(untied) == logits_of(tied));
    for (float& v : untied.tensor("output.weight").values) v *= 2;
    auto twice = logits_of(tied);
    for (float& v : twice) v *= 2;
    CHECK(logits_of(untied) == twice);
  }
}

TEST_CASE("an optional tensor that changes nothing may be there or not, one that does is used") {
  for (const std::string& name : test::architectures()) {
    const auto bare = test::tiny_model(name).make_tensors();
    const auto whole = test::tiny_model(name).make_tensors({.optional = true});
    const auto expected = logits_of(bare);
    for (const auto& optional : whole.tensors) {
      const auto same = [&](const auto& t) { return t.name == optional.name; };
      if (std::any_of(bare.tensors.begin(), bare.tensors.end(), same)) continue;
      if (optional.name == "output.weight") continue;
      CAPTURE(name, optional.name);
      auto model = bare;
      auto& added = model.add(optional.name, optional.shape);
      const bool scale = optional.name.ends_with(".scale");
      std::fill(added.values.begin(), added.values.end(), scale ? 1.0f : 0.0f);
      CHECK(define(model).unused.empty());
      CHECK(logits_of(model) == expected);
      auto& changed = model.tensor(optional.name);
      changed.values = optional.values;
      changed.values[0] = 1.5f;
      CHECK(logits_of(model) != expected);
    }
  }
}

TEST_CASE("tensors that nothing reads are listed, and the plan says so") {
  auto model = test::tiny_model("llama").make_tensors();
  model.add("rope_freqs.weight", {{4, 1, 1, 1}}).values.assign(4, 1.0f);
  CHECK(define(model).unused.empty());  // it is read
  model.add("blk.0.attn_rot_embd", {{3, 1, 1, 1}});
  model.add("blk.2.attn_norm.weight", {{32, 1, 1, 1}});  // there is no third layer
  model.add("vision.patch", {{5, 5, 1, 1}});
  const std::vector<std::string> expected = {"blk.0.attn_rot_embd", "blk.2.attn_norm.weight",
                                             "vision.patch"};
  CHECK(define(model).unused == expected);
  const auto bytes = model.bytes();
  const nibble::model loaded(nibble::gguf::file(bytes, "tiny.gguf"),
                             test::exact_options(nibble::activation_type::int8, 1));
  const auto& reasons = loaded.plan().reasons;
  CHECK(std::any_of(reasons.begin(), reasons.end(), [](const std::string& r) {
    return r.find("3 tensors") != r.npos && r.find("blk.0.attn_rot_embd") != r.npos;
  }));
}

TEST_CASE("frequency factors must be one positive number for each rotated pair") {
  auto model = test::tiny_model("llama").make_tensors();
  auto& t = model.add("rope_freqs.weight", {{4, 1, 1, 1}});
  t.values = {1, 1, 2, 4};
  CHECK(define(model).rope_factors == t.values);
  t.values = {1, 1, 1, 1};
  const auto plain = logits_of(model);
  t.values = {1, 1, 2, 4};
  CHECK(test::relative_rms(logits_of(model), plain) > 1e-4);
  for (const float bad : {0.0f, -1.0f, std::nanf(""), HUGE_VALF}) {
    t.values[2] = bad;
    test::check_error(test::thrown([&] { define(model); }), errc::bad_file,
                      {"rope_freqs.weight", "factor 2", "positive"});
  }
  for (const std::uint64_t length : {3, 5, 8}) {
    t.shape.extent[0] = length;
    t.values.assign(length, 1.0f);
    test::check_error(test::thrown([&] { define(model); }), errc::bad_file,
                      {"rope_freqs.weight", shape_text({length}), "4 rotated pairs"});
  }
}

TEST_CASE("weights that are no numbers give logits that are none, and an error when sampled") {
  for (const std::string& name : test::architectures()) {
    for (const auto type : {nibble::activation_type::float32, nibble::activation_type::int8}) {
      for (const float bad : {std::nanf(""), HUGE_VALF, -HUGE_VALF}) {
        auto model = test::tiny_model(name).make_tensors({.optional = true});
        for (auto& t : model.tensors) {
          for (std::size_t i = 0; i < t.values.size(); i += 7) t.values[i] = bad;
        }
        const auto bytes = model.bytes();
        auto options = test::exact_options(type, 2);
        options.plan.context = 8;
        const nibble::model loaded(nibble::gguf::file(bytes, "tiny.gguf"), options);
        nibble::session session(loaded);
        session.append(std::vector<nibble::token>{1, 2, 3});
        CAPTURE(name, bad);
        test::check_error(test::thrown([&] { session.sample(); }), errc::device,
                          {"none of the logits is a number"});
      }
    }
  }
}

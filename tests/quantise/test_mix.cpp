// Type mixes beside what llama.cpp's quantiser wrote: files of it, and the counts of tensors by
// type that its loader prints for well-known models.

#include <map>
#include <nibble/formats/list.hpp>
#include <nibble/gguf/file.hpp>
#include <nibble/quantise/mix.hpp>

#include "catch.hpp"
#include "errors.hpp"
#include "test_data.hpp"

namespace {

struct made_tensor {
  std::string name;
  nibble::shape shape;
};

// The tensors of a llama of this shape; `experts`: matrices in the feed-forward tensors.
struct made_model {
  nibble::mix_model facts;
  std::vector<made_tensor> tensors;

  made_model(std::uint64_t layers, std::uint64_t heads, std::uint64_t kv_heads,
             std::uint64_t experts, bool tied = false, std::uint64_t width = 4096,
             std::uint64_t ffn = 14336)
      : facts{layers, heads, kv_heads, experts} {
    const std::uint64_t n = std::max<std::uint64_t>(1, experts), kv = width / heads * kv_heads;
    const std::string kind = experts == 0 ? ".weight" : "_exps.weight";
    add("token_embd.weight", {{width, 32000, 1, 1}});
    add("output_norm.weight", {{width, 1, 1, 1}});
    if (!tied) add("output.weight", {{width, 32000, 1, 1}});
    for (std::uint64_t i = 0; i < layers; ++i) {
      const std::string blk = "blk." + std::to_string(i) + ".";
      add(blk + "attn_norm.weight", {{width, 1, 1, 1}});
      add(blk + "ffn_norm.weight", {{width, 1, 1, 1}});
      add(blk + "attn_q.weight", {{width, width, 1, 1}});
      add(blk + "attn_k.weight", {{width, kv, 1, 1}});
      add(blk + "attn_v.weight", {{width, kv, 1, 1}});
      add(blk + "attn_output.weight", {{width, width, 1, 1}});
      if (experts != 0) add(blk + "ffn_gate_inp.weight", {{width, experts, 1, 1}});
      add(blk + "ffn_gate" + kind, {{width, ffn, n, 1}});
      add(blk + "ffn_up" + kind, {{width, ffn, n, 1}});
      add(blk + "ffn_down" + kind, {{ffn, width, n, 1}});
    }
  }
  void add(std::string name, const nibble::shape& s) { tensors.push_back({std::move(name), s}); }

  std::vector<nibble::tensor_choice> choose(const nibble::mix_options& options) const {
    std::vector<nibble::mix_tensor> list;
    for (const made_tensor& t : tensors) list.push_back({t.name, t.shape});
    return nibble::choose_formats(facts, list, options);
  }
  // By format, with "left" for what stays.
  std::map<std::string, int> counts(const nibble::mix_options& options) const {
    std::map<std::string, int> out;
    for (const auto& c : choose(options)) ++out[c.to ? nibble::format_name(*c.to) : "left"];
    return out;
  }
  std::string of(const std::string& name, const nibble::mix_options& options) const {
    const auto all = choose(options);
    for (std::size_t i = 0; i < tensors.size(); ++i) {
      if (tensors[i].name == name) return all[i].to ? nibble::format_name(*all[i].to) : "left";
    }
    return "absent";
  }
};

nibble::mix_options type(const char* name) {
  nibble::mix_options out;
  out.type = name;
  return out;
}

nibble::format_id format(const char* name) {
  return nibble::find_format(name).value();
}

using counts = std::map<std::string, int>;

}  // namespace

TEST_CASE("mix: files that llama.cpp's quantiser wrote have the same types") {
  const auto source = test::data("models/stories260K-x256-f32.gguf");
  if (!source) return;
  const nibble::gguf::file f32(*source);
  std::vector<nibble::mix_tensor> list;
  for (const auto& t : f32.tensors()) list.push_back({t.name, t.view.shape});
  for (const char* name : {"q2_k", "q3_k_m", "iq4_nl", "iq4_xs", "tq1_0"}) {
    const auto path = test::data(std::string("models/stories260K-x256-lc-") + name + ".gguf");
    if (!path) return;
    const nibble::gguf::file theirs(*path);
    const auto ours = nibble::choose_formats(nibble::read_mix_model(f32), list, type(name));
    CHECK(nibble::find_type_mix(name)->file_type ==
          theirs.require<std::uint32_t>("general.file_type"));
    REQUIRE(ours.size() == theirs.tensors().size());
    for (std::size_t i = 0; i < ours.size(); ++i) {
      INFO(name << ' ' << list[i].name);
      const auto* const t = theirs.find_tensor(list[i].name);
      REQUIRE(t != nullptr);
      CHECK(nibble::format_name(ours[i].to.value_or(f32.tensors()[i].view.format)) ==
            nibble::format_name(t->view.format));
    }
  }
}

TEST_CASE("mix: counts by type of well-known files") {
  // Llama 3 8B and Mistral 7B: 32 layers, 32 heads, 8 of keys and values
  const made_model model(32, 32, 8, 0);
  CHECK(model.counts(type("q2_k")) ==
        counts{{"left", 65}, {"q2_k", 129}, {"q3_k", 64}, {"q4_k", 32}, {"q6_k", 1}});
  CHECK(model.counts(type("q3_k_s")) == counts{{"left", 65}, {"q3_k", 225}, {"q6_k", 1}});
  CHECK(model.counts(type("q3_k_m")) ==
        counts{{"left", 65}, {"q3_k", 129}, {"q4_k", 92}, {"q5_k", 4}, {"q6_k", 1}});
  CHECK(model.counts(type("q3_k_l")) ==
        counts{{"left", 65}, {"q3_k", 129}, {"q5_k", 96}, {"q6_k", 1}});
  CHECK(model.counts(type("q4_k_s")) ==
        counts{{"left", 65}, {"q4_k", 217}, {"q5_k", 8}, {"q6_k", 1}});
  CHECK(model.counts(type("q4_k_m")) == counts{{"left", 65}, {"q4_k", 193}, {"q6_k", 33}});
  CHECK(model.counts(type("q5_k_s")) == counts{{"left", 65}, {"q5_k", 225}, {"q6_k", 1}});
  CHECK(model.counts(type("q5_k_m")) == counts{{"left", 65}, {"q5_k", 193}, {"q6_k", 33}});
  CHECK(model.counts(type("q6_k")) == counts{{"left", 65}, {"q6_k", 226}});
  CHECK(model.counts(type("q8_0")) == counts{{"left", 65}, {"q8_0", 226}});
  CHECK(model.counts(type("q4_0")) == counts{{"left", 65}, {"q4_0", 225}, {"q6_k", 1}});
  CHECK(model.counts(type("f16")) == counts{{"left", 65}, {"f16", 226}});
  CHECK(model.counts(type("Q4_K")) == model.counts(type("q4_k_m")));
  // the same with as many heads of keys and values as of queries
  CHECK(made_model(32, 32, 32, 0).counts(type("q2_k")) ==
        counts{{"left", 65}, {"q2_k", 129}, {"q3_k", 96}, {"q6_k", 1}});
}

TEST_CASE("mix: importance changes the choices of some types") {
  const made_model model(32, 32, 8, 0);
  nibble::mix_options q4 = type("q4_0"), iq4 = type("iq4_xs");
  CHECK(model.of("blk.0.ffn_down.weight", q4) == "q4_0");
  CHECK(model.of("blk.0.ffn_down.weight", iq4) == "q5_k");
  q4.importance = iq4.importance = true;
  CHECK(model.of("blk.0.ffn_down.weight", q4) == "q4_1");
  CHECK(model.of("blk.4.ffn_down.weight", q4) == "q4_0");
  CHECK(model.of("blk.0.ffn_down.weight", iq4) == "iq4_xs");
}

TEST_CASE("mix: experts, routers, grouped heads") {
  const made_model eight(32, 32, 8, 8);
  CHECK(eight.of("blk.5.attn_v.weight", type("q4_k_m")) == "q8_0");
  CHECK(eight.of("blk.5.attn_k.weight", type("q4_k_m")) == "q8_0");
  CHECK(eight.of("blk.5.attn_output.weight", type("q4_k_m")) == "q5_k");
  CHECK(eight.of("blk.5.attn_output.weight", type("q3_k_l")) == "q3_k");
  CHECK(eight.of("blk.5.ffn_gate_inp.weight", type("q4_k_m")) == "left");
  CHECK(eight.of("blk.0.ffn_down_exps.weight", type("q4_k_m")) == "q6_k");
  const made_model many(32, 32, 8, 64);
  CHECK(many.of("blk.5.attn_k.weight", type("q4_k_m")) == "q4_k");
  CHECK(many.of("blk.5.ffn_down_exps.weight", type("mxfp4_moe")) == "mxfp4");
  CHECK(many.of("blk.5.ffn_up_exps.weight", type("mxfp4_moe")) == "mxfp4");
  CHECK(many.of("blk.5.attn_q.weight", type("mxfp4_moe")) == "q8_0");
  CHECK(many.of("token_embd.weight", type("mxfp4_moe")) == "q8_0");
  CHECK(many.of("output.weight", type("mxfp4_moe")) == "q8_0");
  CHECK(many.of("blk.5.attn_q.weight", type("mxfp4")) == "mxfp4");
  const made_model large(80, 64, 8, 0, false, 8192);
  CHECK(large.of("blk.10.attn_v.weight", type("q4_k_m")) == "q5_k");
  CHECK(large.of("blk.0.attn_v.weight", type("q4_k_m")) == "q6_k");
}

TEST_CASE("mix: embedding and output") {
  const made_model apart(32, 32, 8, 0), tied(32, 32, 8, 0, true);
  CHECK(apart.of("token_embd.weight", type("q4_k_m")) == "q4_k");
  CHECK(apart.of("token_embd.weight", type("tq1_0")) == "q4_k");
  CHECK(apart.of("output.weight", type("tq1_0")) == "q6_k");
  CHECK(tied.of("token_embd.weight", type("q4_k_m")) == "q6_k");
  CHECK(tied.of("token_embd.weight", type("q8_0")) == "q8_0");
  nibble::mix_options asked = type("q4_k_m");
  asked.output = format("q8_0");
  CHECK(apart.of("output.weight", asked) == "q8_0");
  CHECK(apart.of("token_embd.weight", asked) == "q4_k");
  CHECK(tied.of("token_embd.weight", asked) == "q8_0");
  asked.embedding = format("q5_0");
  CHECK(apart.of("token_embd.weight", asked) == "q5_0");
  CHECK(tied.of("token_embd.weight", asked) == "q5_0");
}

TEST_CASE("mix: rows that do not divide") {
  struct example {
    const char* type;
    std::uint64_t columns;
    const char* found;
  };
  const example examples[] = {
      {"q2_k", 288, "iq4_nl"}, {"q3_k_s", 288, "iq4_nl"}, {"q4_k_s", 288, "q5_0"},
      {"q5_k_s", 288, "q5_1"}, {"q6_k", 288, "q8_0"},     {"iq4_xs", 288, "iq4_nl"},
      {"tq1_0", 288, "q4_0"},  {"tq2_0", 288, "q4_0"},    {"q4_k_s", 172, "f16"},
      {"q8_0", 172, "f16"},    {"mxfp4", 172, "f16"},     {"q8_0", 288, "q8_0"},
      {"f16", 7, "f16"},       {"bf16", 7, "bf16"},
  };
  for (const example& e : examples) {
    const nibble::mix_tensor t[] = {{"blk.0.attn_q.weight", {{e.columns, 4, 1, 1}}}};
    const auto found = nibble::choose_formats({}, t, type(e.type)).at(0);
    INFO(e.type << ' ' << e.columns);
    CHECK(nibble::format_name(found.to.value()) == e.found);
    const auto base = nibble::find_type_mix(e.type)->base;
    if (*found.to == base) {
      CHECK(!found.instead_of);
    } else {
      CHECK(found.instead_of == base);
    }
  }
}

TEST_CASE("mix: rules come before the mix, what is left before all") {
  const made_model model(4, 32, 8, 0);
  nibble::mix_options o = type("q4_k_m");
  o.rules = {{"blk.[0-1].attn_q.weight", format("q8_0")},
             {"*attn_?.weight", format("q5_1")},
             {"blk.3.ffn_up.weight", format("q4_k")}};
  o.leave = {"blk.2.*"};
  CHECK(model.of("blk.1.attn_q.weight", o) == "q8_0");
  CHECK(model.of("blk.3.attn_q.weight", o) == "q5_1");
  CHECK(model.of("blk.0.attn_v.weight", o) == "q5_1");
  CHECK(model.of("blk.2.attn_q.weight", o) == "left");
  CHECK(model.of("blk.3.ffn_up.weight", o) == "q4_k");
  o.pure = true;
  CHECK(model.of("output.weight", o) == "q4_k");
  CHECK(model.of("blk.0.attn_v.weight", o) == "q5_1");
  CHECK(model.of("blk.3.ffn_down.weight", o) == "q4_k");
  CHECK(model.of("output_norm.weight", o) == "left");

  using nibble::errc;
  const auto refused = [&](const nibble::mix_options& bad) {
    return test::thrown([&] { model.choose(bad); });
  };
  nibble::mix_options bad = type("q4_k_m");
  bad.rules = {{"attn_q", format("q8_0")}};
  test::check_error(refused(bad), errc::invalid_argument, {"'attn_q'", "matches no tensor"});
  bad.rules = {{"output_norm.weight", format("q8_0")}};
  test::check_error(refused(bad), errc::invalid_argument, {"that may be converted"});
  bad.rules = {{"blk.[0-3.attn_q.weight", format("q8_0")}};
  test::check_error(refused(bad), errc::invalid_argument, {"no ] closes"});
  bad.rules = {{"", format("q8_0")}};
  test::check_error(refused(bad), errc::invalid_argument, {"is empty"});
  bad.rules.clear();
  bad.leave = {"nothing"};
  test::check_error(refused(bad), errc::invalid_argument, {"'nothing'", "matches no tensor"});
  test::check_error(refused(type("q9_k")), errc::invalid_argument, {"'q9_k'", "q4_k_m", "mxfp4"});
}

TEST_CASE("mix: globs") {
  const auto fits = [](const char* pattern, const char* text) {
    return nibble::glob_matches(pattern, text);
  };
  CHECK(fits("*", ""));
  CHECK(fits("a*c", "abbbc"));
  CHECK(fits("a*b*c", "aXbXbXc"));
  CHECK(!fits("a*b*c", "aXbX"));
  CHECK(fits("?", "x"));
  CHECK(!fits("?", ""));
  CHECK(!fits("", "x"));
  CHECK(fits("[a-c]1", "b1"));
  CHECK(!fits("[!a-c]1", "b1"));
  CHECK(fits("[!a-c]1", "d1"));
  CHECK(fits("[]x]", "]"));
  CHECK(fits("[a-]", "-"));
  CHECK(fits("**.weight", "blk.0.weight"));
  CHECK(!fits("*.weigh", "blk.0.weight"));
  // what would keep a matcher busy that tries all ways
  const std::string many(60, 'a');
  std::string stars;
  for (int i = 0; i < 30; ++i) stars += "*a";
  CHECK(nibble::glob_matches(stars, many));
  CHECK(!nibble::glob_matches(stars + "b", many));
}

TEST_CASE("mix: every format is a type, and the list has each name once") {
  std::map<std::string, int> names;
  for (const auto& mix : nibble::all_type_mixes()) {
    ++names[std::string(mix.name)];
    CHECK(nibble::has_format(mix.base));
  }
  for (const auto& [name, times] : names) CHECK(times == 1);
  for (const nibble::format_info& info : nibble::format_infos) {
    const auto mix = nibble::find_type_mix(info.name);
    REQUIRE(mix);
    CHECK(mix->base == info.id);
  }
}

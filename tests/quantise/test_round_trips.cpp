// Every format to every format on real weights, and what models lose by it. All formats of all
// files through the program: tools/quantise/round_trips.py.

#include <algorithm>
#include <iterator>
#include <map>
#include <nibble/nibble.hpp>

#include "quantise_test.hpp"
#include "run_model.hpp"
#include "temporary_folder.hpp"
#include "test_data.hpp"

namespace {

// Part of a real model: [256, 24] of several kinds of matrices, and a norm.
nibble::gguf::file some_weights(const nibble::gguf::file& model, const std::filesystem::path& at) {
  test::made_file made;
  for (const char* name : {"token_embd.weight", "blk.0.attn_v.weight", "blk.4.ffn_down.weight"}) {
    auto values = test::decoded(*model.find_tensor(name));
    values.resize(256 * 24);
    made.add(name, {{256, 24, 1, 1}}, std::move(values));
  }
  made.add("output_norm.weight", {{256, 1, 1, 1}},
           test::decoded(*model.find_tensor("output_norm.weight")));
  return made.write(at);
}

std::vector<float> all_values(const nibble::gguf::file& file) {
  std::vector<float> out;
  for (const auto& t : file.tensors()) {
    const auto values = test::decoded(t);
    out.insert(out.end(), values.begin(), values.end());
  }
  return out;
}

}  // namespace

TEST_CASE("round trips: every format to every format") {
  const auto path = test::data("models/stories260K-x256-f32.gguf");
  if (!path) return;
  const test::temporary_folder folder;
  const nibble::gguf::file model(*path);
  const auto source = some_weights(model, folder / "source.gguf");
  const auto reference = all_values(source);
  std::map<std::string_view, double> direct;
  std::vector<nibble::format_info> formats;
  std::copy_if(nibble::format_infos.begin(), nibble::format_infos.end(),
               std::back_inserter(formats), [](const auto& f) { return test::makes(f.id); });
  REQUIRE(formats.size() >= 5);
  for (const nibble::format_info& a : formats) {
    nibble::quantise_file(source, folder / "a.gguf", test::to_type(std::string(a.name)));
    const nibble::gguf::file in_a(folder / "a.gguf");
    direct[a.name] = test::relative_rms(all_values(in_a), reference);
  }
  for (const nibble::format_info& a : formats) {
    nibble::quantise_file(source, folder / "a.gguf", test::to_type(std::string(a.name)));
    const nibble::gguf::file in_a(folder / "a.gguf");
    for (const nibble::format_info& b : formats) {
      INFO(a.name << " -> " << b.name);
      const auto report =
          nibble::quantise_file(in_a, folder / "b.gguf", test::to_type(std::string(b.name)));
      const nibble::gguf::file in_b(folder / "b.gguf");
      for (const auto& t : report.tensors) {
        const auto* const found = in_b.find_tensor(t.name);
        REQUIRE(found != nullptr);
        const bool norm = t.name == "output_norm.weight";
        CHECK(nibble::format_name(found->view.format) == (norm ? "f32" : b.name));
        if (t.from != t.to) continue;
        CHECK(
            std::ranges::equal(test::bytes_of(*found), test::bytes_of(*in_a.find_tensor(t.name))));
      }
      // two roundings err by no more than each alone, and a little where the second one meets the
      // steps of the first
      CHECK(test::relative_rms(all_values(in_b), reference) <=
            1.1 * (direct[a.name] + direct[b.name]) + 1e-6);
    }
  }
}

TEST_CASE("round trips: models load, and their logits stay near those of F32") {
  const auto path = test::data("models/stories260K-x256-f32.gguf");
  if (!path) return;
  const test::temporary_folder folder;
  // Distances that plain encoders without any search have on this model (verify.json beside the
  // data); for the others what is between or below them by their bits. A quarter more is allowed.
  const std::pair<const char*, double> bounds[] = {
      {"f16", 0.001},    {"bf16", 0.005}, {"q8_0", 0.0045},  {"q6_k", 0.015},
      {"q5_k_m", 0.029}, {"q5_1", 0.031}, {"q4_k_m", 0.052}, {"q4_0", 0.069},
      {"iq4_xs", 0.069}, {"mxfp4", 0.15}, {"q3_k_m", 0.15}};
  std::vector<nibble::token> tokens;
  for (int i = 0; i < 24; ++i) tokens.push_back(i == 0 ? 1 : 250 + 7 * i);
  auto options = test::exact_options(nibble::activation_type::float32, 2);
  options.plan.all_logits = true;
  options.plan.context = static_cast<std::int32_t>(tokens.size());
  const nibble::gguf::file source(*path);
  const auto reference = test::all_logits(nibble::model(source, options), tokens);
  for (const auto& [type, bound] : bounds) {
    if (!test::makes(nibble::find_type_mix(type)->base) ||
        !test::makes(nibble::find_type_mix("q6_k")->base))
      continue;
    nibble::quantise_file(source, folder / "out.gguf", test::to_type(type, false));
    const nibble::model model(nibble::gguf::file(folder / "out.gguf"), options);
    const double found = test::relative_rms(test::all_logits(model, tokens), reference);
    INFO(type << ": " << found);
    CHECK(found <= 1.25 * bound);
  }
}

TEST_CASE("round trips: each real model becomes another that loads") {
  const auto models = test::data("models");
  if (!models) return;
  const test::temporary_folder folder;
  const char* const types[] = {"q4_0", "f32", "q8_0", "bf16", "f16"};  // quick ones
  std::size_t files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(*models)) {
    if (entry.path().extension() != ".gguf") continue;
    const char* const type = types[files++ % std::size(types)];
    INFO(entry.path().filename() << " -> " << type);
    nibble::quantise_file(entry.path(), folder / "out.gguf", test::to_type(type));
    const nibble::model model(nibble::gguf::file(folder / "out.gguf"),
                              test::exact_options(nibble::activation_type::float32, 2));
    nibble::session session(model);
    const nibble::token tokens[] = {1, 2, 3};
    for (const float x : session.append(tokens)) CHECK(std::isfinite(x));
  }
  CHECK(files >= 24);
}

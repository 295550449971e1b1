// Tiny models of every architecture, and of every weight format, for the fuzzer to start from.
#include "write_seeds.hpp"

#include <filesystem>
#include <fstream>
#include <model/tiny_model.hpp>

namespace {

void write(const std::filesystem::path& path, const test::tiny_model& model) {
  const auto bytes = model.bytes();
  std::ofstream out(path, std::ios::binary);
  out.write(reinterpret_cast<const char*>(bytes.data()),
            static_cast<std::streamsize>(bytes.size()));
  if (!out.flush()) throw std::runtime_error("cannot be written: " + path.string());
}

}  // namespace

void write_seeds(const std::filesystem::path& folder) {
  using namespace nibble::formats;
  const std::vector<nibble::format_id> small = {nibble::id_of<q4_0>, nibble::id_of<q8_0>,
                                                nibble::id_of<f16>, nibble::id_of<bf16>};
  for (const std::string& name : test::architectures()) {
    test::tiny_model bare(name);
    write(folder / (name + ".gguf"), bare.make_tensors({.matrices = small}));
    test::tiny_model whole(name);
    whole.set_vocabulary().make_tensors({.optional = true, .matrices = small});
    whole.add("rope_freqs.weight", {{name == "llama" ? 4u : 8u, 1, 1, 1}});
    for (float& f : whole.tensor("rope_freqs.weight").values) f = 1 + f * f;
    write(folder / (name + "-whole.gguf"), whole);
  }
  test::tiny_model experts("llama");
  write(folder / "llama-experts.gguf", experts.set_experts(3, 3).make_tensors({.matrices = small}));

  // rows of 256, in which every format has whole blocks
  test::tiny_model wide("llama");
  wide.set("embedding_length", 256).set("feed_forward_length", 256);
  wide.set("attention.value_length", 64).set("attention.key_length", 8);
  test::tensor_choice all{.matrices = {}};
  for (const auto& info : nibble::format_infos) {
    const auto has_it = [&](nibble::format_id id) { return id == info.id; };
    if (info.id != test::f32 && std::none_of(small.begin(), small.end(), has_it)) {
      all.matrices.push_back(info.id);
    }
  }
  write(folder / "formats.gguf", wide.make_tensors(all));
}

// Small importance matrices of both kinds, for the fuzzer to start from.
#include <cstdint>
#include <fstream>
#include <nibble/quantise/imatrix.hpp>

#include "write_seeds.hpp"

namespace {

template <typename T>
void put(std::ofstream& out, T number) {
  out.write(reinterpret_cast<const char*>(&number), sizeof number);
}

void put_text(std::ofstream& out, const std::string& text) {
  put(out, static_cast<std::int32_t>(text.size()));
  out << text;
}

void write_dat(const std::filesystem::path& path, bool with_text) {
  std::ofstream out(path, std::ios::binary);
  put(out, std::int32_t{2});
  for (const char* name : {"output.weight", "blk.0.attn_q.weight"}) {
    put_text(out, name);
    put(out, std::int32_t{3});  // calls
    put(out, std::int32_t{4});  // values
    for (const float x : {1.0f, 0.0f, 2.5f, 1e30f}) put(out, x);
  }
  if (!with_text) return;
  put(out, std::int32_t{7});
  put_text(out, "wiki.txt");
}

}  // namespace

void write_seeds(const std::filesystem::path& folder) {
  write_dat(folder / "old.dat", false);
  write_dat(folder / "new.dat", true);
  nibble::imatrix m;
  m.datasets = {"one", "two"};
  m.chunk_count = 3;
  m.chunk_size = 512;
  m.tensors["a.weight"] = {{1, 2, 3, 4}, {2}};
  m.tensors["experts.weight"] = {{1, 2, 3, 4}, {2, 0}};
  nibble::write_imatrix(m, folder / "m.gguf");
}

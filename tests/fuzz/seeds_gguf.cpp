// Small files that have one of everything, for the fuzzer to start from.
#include "write_seeds.hpp"

#include <nibble/formats/list.hpp>
#include <nibble/gguf/writer.hpp>

namespace {

namespace gguf = nibble::gguf;

void set_numbers(gguf::writer& w) {
  const auto both = [&w]<typename T>(const char* scalar, const char* array, T number) {
    const T numbers[] = {number, T{}, number};
    w.set(scalar, number);
    w.set_array(array, std::span<const T>(numbers));
  };
  both("u8", "u8s", std::uint8_t{200});
  both("i8", "i8s", std::int8_t{-100});
  both("u16", "u16s", std::uint16_t{60000});
  both("i16", "i16s", std::int16_t{-30000});
  both("u32", "u32s", std::uint32_t{4000000000});
  both("i32", "i32s", std::int32_t{-2000000000});
  both("u64", "u64s", ~std::uint64_t{0});
  both("i64", "i64s", std::int64_t{-1});
  both("f32", "f32s", 1.5f);
  both("f64", "f64s", 1e300);
}

void set_others(gguf::writer& w) {
  const std::string strings[] = {"<s>", "", "abc"};
  w.set("general.architecture", "llama");
  w.set("flag", true);
  w.set_array("strings", std::span<const std::string>(strings));
  const auto inner = std::make_shared<const gguf::array_view>(
      gguf::array_view{gguf::value_type::string, 1, {}, {"x"}, {}});
  w.set("nested", gguf::value{std::make_shared<const gguf::array_view>(
                      gguf::array_view{gguf::value_type::array, 1, {}, {}, {gguf::value{inner}}})});
}

}  // namespace

void write_seeds(const std::filesystem::path& folder) {
  gguf::writer metadata;
  set_numbers(metadata);
  set_others(metadata);
  metadata.write(folder / "metadata.gguf");

  const std::vector<std::byte> block(2048, std::byte{0x35});
  gguf::writer tensors(8);
  set_others(tensors);
  for (const nibble::format_info& format : nibble::format_infos) {
    const nibble::shape shape{{format.block_size, 2, 1, 1}};
    tensors.add_tensor(format.name, format.id, shape,
                       std::span(block).first(2ull * format.block_bytes));
  }
  tensors.write(folder / "tensors.gguf");

  gguf::writer small;
  small.add_tensor("t", nibble::format_id{0}, {{2, 2, 2, 2}}, std::span(block).first(64));
  small.add_tensor("none", nibble::format_id{1}, {{4, 0, 1, 1}}, std::span(block).first(0));
  small.write(folder / "small.gguf");
}

// Any bytes: an error, or a file of which everything can be read, and which written again is the
// same file. What opens as a whole opens for its header, with the same directory.
#include <cstdlib>
#include <gguf/walk.hpp>
#include <nibble/gguf/writer.hpp>
#include <optional>

namespace {

void check(bool truth) {
  if (!truth) std::abort();
}

std::optional<nibble::gguf::file> open(std::span<const std::byte> bytes,
                                       const nibble::gguf::open_options& options = {}) {
  try {
    return nibble::gguf::file(bytes, "fuzz", options);
  } catch (const nibble::error& e) {
    check(e.file() == "fuzz");
    return std::nullopt;
  }
}

// What may be touched without data.
void walk_header(const nibble::gguf::file& file) {
  for (const nibble::gguf::tensor_info& t : file.tensors()) {
    check(t.view.data == nullptr && file.find_tensor(t.name) == &t);
    file.prefetch(t);
    file.release(t);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto bytes = std::as_bytes(std::span(data, size));
  const auto header = open(bytes, {.header_only = true});
  if (header) walk_header(*header);
  const auto file = open(bytes);
  if (!file) return 0;
  check(header && header->tensors().size() == file->tensors().size());
  check(header->absent_bytes() == 0);
  test::walk(*file);
  nibble::gguf::writer writer(static_cast<std::uint32_t>(file->alignment()));
  writer.copy_metadata(*file);
  for (const nibble::gguf::tensor_info& t : file->tensors()) {
    writer.add_tensor(t.name, t.view.format, t.view.shape, std::span(t.view.data, t.bytes));
  }
  const auto written = writer.to_bytes();
  const auto again = open(written);
  check(again && again->tensors().size() == file->tensors().size());
  for (std::size_t i = 0; i < again->tensors().size(); ++i) {
    check(test::touch(again->tensors()[i]) == test::touch(file->tensors()[i]));
  }
  return 0;
}

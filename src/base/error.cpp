#include <nibble/base/concat.hpp>
#include <nibble/base/error.hpp>

namespace nibble::inline NIBBLE_ABI {
namespace {

std::string with_context(const std::string& sentence, const error_context& where) {
  std::string out;
  if (!where.file.empty()) out += concat(where.file, ": ");
  if (!where.device.empty()) out += concat(where.device, ": ");
  if (!where.tensor.empty()) out += concat("tensor '", where.tensor, "': ");
  out += sentence;
  if (where.offset) out += concat(" (at byte ", *where.offset, ")");
  return out;
}

}  // namespace

error::error(errc code, const std::string& sentence, error_context where)
    : std::runtime_error(with_context(sentence, where)), code_(code), where_(std::move(where)) {}

error::~error() = default;

}  // namespace nibble::inline NIBBLE_ABI

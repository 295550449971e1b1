// Whether an importance matrix belongs to a model.
#include <algorithm>
#include <nibble/base/concat.hpp>
#include <nibble/base/fingerprint.hpp>
#include <nibble/base/utf8.hpp>
#include <nibble/formats/decode.hpp>
#include <nibble/formats/list.hpp>
#include <nibble/quantise/imatrix.hpp>

#include "base/memory_for.hpp"

namespace nibble::inline NIBBLE_ABI {
namespace {

void check_length(const gguf::file& model, const gguf::tensor_info& tensor,
                  const importance& entry) {
  const nibble::shape& s = tensor.view.shape;
  const std::uint64_t matrices = s.extent[2] * s.extent[3];
  if (entry.in_sum2.size() == s.columns() * matrices &&
      (entry.counts.size() == matrices || entry.counts.size() == 1)) {
    return;
  }
  throw error(
      errc::invalid_argument,
      concat("its importance has ", entry.in_sum2.size(), " numbers in ", entry.counts.size(),
             " matrices, and its shape ", to_text(s), " needs ", s.columns(), " in each of ",
             matrices, ": the importance matrix belongs to another model"),
      {.file = model.name(), .tensor = gguf::printable(tensor.name)});
}

// In floats, so that the format does not count.
void add_values(fingerprint& to, const gguf::file& model, const gguf::tensor_info& tensor) {
  const std::uint64_t columns = tensor.view.shape.columns();
  if (tensor.view.shape.rows() != 1 || !has_format(tensor.view.format)) return;
  std::vector<float> values(columns);
  std::vector<std::byte> buffer;
  const auto stored = model.read(tensor, 0, tensor.bytes, buffer);
  decode_row(tensor.view.format, stored.data(), columns, values.data());
  to.add(std::as_bytes(std::span(values)));
}

}  // namespace

std::string model_fingerprint(const gguf::file& model) {
  if (!model.has_data()) return "";
  return with_memory_for("the fingerprint of a model", [&] {
    std::vector<const gguf::tensor_info*> tensors;
    for (const gguf::tensor_info& t : model.tensors()) tensors.push_back(&t);
    std::sort(tensors.begin(), tensors.end(),
              [](const auto* a, const auto* b) { return a->name < b->name; });
    fingerprint all;
    for (const gguf::tensor_info* const t : tensors) {
      all.add(t->name);
      for (const std::uint64_t extent : t->view.shape.extent) all.add(extent);
      add_values(all, model, *t);
    }
    return all.text();
  });
}

void check_importance(const gguf::file& model, const imatrix& m, std::string_view name) {
  const std::string matrix = name.empty() ? "" : concat(" '", gguf::printable(as_utf8(name)), "'");
  const auto refuse = [&](const std::string& sentence) {
    throw error(errc::invalid_argument, sentence, {.file = model.name()});
  };
  if (m.tensors.empty()) {
    refuse(concat("the importance matrix", matrix, " is empty; sums for this model were expected"));
  }
  bool fits = false, says = false;
  for (const auto& [tensor, entry] : m.tensors) {
    const auto* const found = model.find_tensor(tensor);
    if (found == nullptr) continue;
    check_length(model, *found, entry);
    fits = true;
    says = says || !entry.says_nothing();
  }
  if (!fits) {
    refuse(concat("nothing in the importance matrix", matrix, " is for this model: it has ",
                  m.tensors.size(), m.tensors.size() == 1 ? " tensor" : " tensors", ", such as '",
                  gguf::printable(m.tensors.begin()->first),
                  "', and the model none of these; a matrix made with this model was expected"));
  }
  if (!m.model.empty() && model.has_data() && m.model != model_fingerprint(model)) {
    refuse(concat("the importance matrix", matrix, " was made with another model of these shapes; ",
                  "a matrix made with this model was expected"));
  }
  if (!says) {
    refuse(concat("all sums or counts for this model in the importance matrix", matrix,
                  " are 0, so it weighs nothing"));
  }
}

}  // namespace nibble::inline NIBBLE_ABI

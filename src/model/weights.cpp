#include <nibble/base/concat.hpp>
#include <nibble/formats/list.hpp>
#include <nibble/model/weights.hpp>

namespace nibble::inline NIBBLE_ABI {
namespace {

std::string in_layer(block_id block, const std::string& name) {
  return concat("blk.", block.layer, ".", name);
}

// A trailing extent of 1 is not stored by every writer, so shapes compare as GGUF reads them: all
// four extents, ones where nothing is stated.
void check_found(const gguf::file& file, const tensor_need& need) {
  const error_context where{.file = file.name(), .offset = need.found->offset, .tensor = need.name};
  const tensor_view& view = need.found->view;
  // a file may hold tensors of more types
  if (!has_format(view.format)) throw_unsupported(view.format, where);
  if (view.shape != need.shape) {
    throw error(errc::bad_file,
                concat("the shape is ", to_text(view.shape), "; the model's metadata asks for ",
                       to_text(need.shape), "."),
                where);
  }
  if (need.shape.elements() == 0) {
    throw error(errc::bad_file,
                concat("the model's metadata asks for the shape ", to_text(need.shape),
                       ", which has no elements."),
                where);
  }
}

}  // namespace

std::string to_text(const block_id& block) {
  switch (block.kind) {
    case block_kind::embedding:
      return "embedding";
    case block_kind::attention:
      return concat("layer ", block.layer, " attention");
    case block_kind::feed_forward:
      return concat("layer ", block.layer, " feed-forward");
    case block_kind::experts:
      return concat("layer ", block.layer, " experts");
    case block_kind::head:
      return "output head";
  }
  return "";
}

void tensor_needs::matrix(block_id block, const std::string& name,
                          const weight* weight_table::*slot, nibble::shape shape,
                          presence present) {
  list.push_back({.name = name, .shape = shape, .present = present, .block = block, .slot = slot});
}

void tensor_needs::vector(block_id block, const std::string& name,
                          const weight* weight_table::*slot, std::int64_t length) {
  list.push_back({.name = name,
                  .shape = {{static_cast<std::uint64_t>(length), 1, 1, 1}},
                  .block = block,
                  .as_float = true,
                  .slot = slot});
}

void tensor_needs::matrix(block_id block, const std::string& name,
                          const weight* layer_weights::*slot, nibble::shape shape,
                          presence present) {
  list.push_back({.name = in_layer(block, name),
                  .shape = shape,
                  .present = present,
                  .block = block,
                  .slot = slot});
}

void tensor_needs::vector(block_id block, const std::string& name,
                          const weight* layer_weights::*slot, nibble::shape shape,
                          presence present) {
  list.push_back({.name = in_layer(block, name),
                  .shape = shape,
                  .present = present,
                  .block = block,
                  .as_float = true,
                  .slot = slot});
}

bool tensor_need::is_kept() const {
  const auto* const of_layer = std::get_if<const weight * layer_weights::*>(&slot);
  return as_float || (of_layer && *of_layer == &layer_weights::router);
}

tensor_view tensor_need::stored_view() const {
  tensor_view view = found->view;
  if (as_float) view.format = id_of<formats::f32>;
  return view;
}

void find_tensors(const gguf::file& file, std::vector<tensor_need>& needs) {
  for (tensor_need& need : needs) {
    need.found = file.find_tensor(need.name);
    if (need.found) {
      check_found(file, need);
    } else if (need.present == presence::required) {
      throw error(errc::bad_file,
                  concat("the tensor is missing; a model of this architecture needs it with shape ",
                         to_text(need.shape), "."),
                  {.file = file.name(), .tensor = need.name});
    }
  }
}

}  // namespace nibble::inline NIBBLE_ABI

#include "engine/importer.hpp"

#include <algorithm>
#include <nibble/device/stream.hpp>
#include <nibble/formats/decode.hpp>
#include <system_error>

#include "plan/counting.hpp"

namespace nibble::inline NIBBLE_ABI {
namespace {

// Bytes of a tensor that are imported in one piece: while it is, they are in memory twice.
constexpr std::size_t part_bytes = 4 << 20;

bool converted(const tensor_need& need) {
  return need.as_float && need.found->view.format != id_of<formats::f32>;
}

std::size_t row_bytes_of(const tensor_need& need) {
  const tensor_view& view = need.found->view;
  return row_bytes(view.format, view.shape.columns());
}

}  // namespace

const weight* importer::place(const tensor_need& need, backend& device, std::deque<weight>& weights,
                              std::size_t turn) {
  if (is_streamed(need, device)) {
    const gguf::tensor_info& found = *need.found;
    const stored_tensor stored{.part = file_.opened(found.part),
                               .offset = found.offset,
                               .bytes = found.bytes,
                               .name = need.name,
                               .experts = is_on_demand(need, device)};
    return &weights.emplace_back(device.stream()->place_stored(found.view, stored, turn));
  }
  weight& placed = weights.emplace_back(device.place_weight(need.stored_view()));
  placed.name = need.name;
  add_parts(need, device, placed);
  return &placed;
}

void importer::add_parts(const tensor_need& need, backend& device, const weight& to) {
  const shape& s = need.found->view.shape;
  const auto all = static_cast<std::int64_t>(s.rows());
  // converted as a whole
  if (converted(need)) return parts_.push_back({&need, &device, &to, {0, all}});
  const auto in_matrix = static_cast<std::int64_t>(s.extent[1]);
  const auto fitting = static_cast<std::int64_t>(part_bytes / row_bytes_of(need));
  const std::int64_t stride = std::max(fitting / part_rows, std::int64_t{1}) * part_rows;
  for (std::int64_t matrix = 0; matrix < all; matrix += in_matrix) {
    for (std::int64_t row = 0; row < in_matrix; row += stride) {
      parts_.push_back({&need, &device, &to, {matrix + row, std::min(stride, in_matrix - row)}});
    }
  }
}

void importer::run(const std::function<void(double)>& progress) {
  if (progress) progress(0);
  {
    const auto helpers = start_helpers();
    work(progress);
  }
  if (failure_) std::rethrow_exception(failure_);
  // the last part may have been a helper's
  if (progress) progress(1);
}

std::vector<std::jthread> importer::start_helpers() {
  std::vector<std::jthread> helpers;
  const unsigned wanted = std::min(4u, std::max(1u, std::thread::hardware_concurrency())) - 1;
  helpers.reserve(wanted);
  try {
    while (helpers.size() < wanted) helpers.emplace_back([this] { work({}); });
  } catch (const std::system_error&) {
    // no more threads here: fewer load, only more slowly
  }
  return helpers;
}

void importer::work(const std::function<void(double)>& progress) {
  try {
    std::vector<std::byte> buffer;
    for (std::size_t i = next_++; i < parts_.size() && !failed_; i = next_++) {
      import(parts_[i], buffer);
      const std::size_t done = ++done_;
      if (progress && done < parts_.size()) {
        progress(static_cast<double>(done) / static_cast<double>(parts_.size()));
      }
    }
  } catch (...) {
    if (!failed_.exchange(true)) failure_ = std::current_exception();
  }
}

// Read, not taken from the mapping: a file that is cut off meanwhile is then an error.
void importer::import(const part& p, std::vector<std::byte>& buffer) {
  const gguf::tensor_info& found = *p.need->found;
  if (converted(*p.need)) {
    const auto stored = file_.read(found, 0, found.bytes, buffer);
    std::vector<float> values(found.view.shape.elements());
    decode_row(found.view.format, stored.data(), values.size(), values.data());
    p.device->fill_weight(*p.to, p.rows, reinterpret_cast<const std::byte*>(values.data()));
    return;
  }
  const std::size_t bytes = row_bytes_of(*p.need);
  const std::size_t at = static_cast<std::size_t>(p.rows.first) * bytes;
  const auto stored = file_.read(found, at, static_cast<std::size_t>(p.rows.count) * bytes, buffer);
  p.device->fill_weight(*p.to, p.rows, stored.data());
}

}  // namespace nibble::inline NIBBLE_ABI

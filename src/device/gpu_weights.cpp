#include "device/gpu_weights.hpp"

#include <algorithm>
#include <nibble/base/checked.hpp>
#include <nibble/base/concat.hpp>
#include <nibble/base/error.hpp>
#include <nibble/formats/list.hpp>

#include "gpu/matrix_layout.hpp"

namespace nibble::inline NIBBLE_ABI {
namespace {

// Staging buffers: one is packed into while others are on their way.
constexpr std::size_t most_buffers = 4;

kernels::matrix_layout layout_of(format_id format, const shape& s) {
  return kernels::layout_of(format, static_cast<std::int64_t>(s.columns()),
                            static_cast<std::int64_t>(s.extent[1]));
}

}  // namespace

std::size_t gpu_matrix_bytes(const tensor_view& tensor) {
  return layout_of(tensor.format, tensor.shape).bytes;
}

std::size_t gpu_weight_bytes(const tensor_view& tensor) {
  if (!has_format(tensor.format)) throw_unsupported(tensor.format);
  const shape& s = tensor.shape;
  if (s.elements() == 0) {
    throw error(errc::invalid_argument, concat("a weight of shape ", to_text(s), " is empty"));
  }
  // a row is filled up to whole units, of 128 bytes at most, and planes to 256 bytes
  const auto row = checked_add(row_bytes(tensor.format, s.columns()), std::uint64_t{128});
  const auto matrix = row ? checked_mul(*row, s.extent[1]) : row;
  const auto planes = matrix ? checked_add(*matrix, std::uint64_t{3 * 256}) : matrix;
  const std::uint64_t matrices = s.rows() / s.extent[1];
  if (!planes || !checked_mul(*planes, matrices)) {
    throw error(errc::invalid_argument,
                concat("a weight of shape ", to_text(s), " has more bytes than can be counted"));
  }
  return gpu_matrix_bytes(tensor) * static_cast<std::size_t>(matrices);
}

gpu::packed_matrix packed_matrix_of(const weight& w) {
  return {.data = w.data,
          .format = *format_index(w.format),
          .columns = static_cast<std::int64_t>(w.shape.columns()),
          .rows = static_cast<std::int64_t>(w.shape.extent[1]),
          .matrix_bytes = w.matrix_bytes,
          .matrices = static_cast<std::int64_t>(w.shape.rows() / w.shape.extent[1])};
}

void weight_uploads::fill(const weight& placed, row_range rows, const std::byte* from) {
  const auto in_matrix = static_cast<std::int64_t>(placed.shape.extent[1]);
  const auto columns = static_cast<std::int64_t>(placed.shape.columns());
  const std::size_t bytes_of_row = row_bytes(placed.format, placed.shape.columns());
  const kernels::matrix_layout layout = layout_of(placed.format, placed.shape);
  while (rows.count > 0) {
    const std::int64_t first = rows.first % in_matrix;
    const std::int64_t n = std::min(rows.count, in_matrix - first);
    const kernels::packed_rows some = kernels::rows_of(layout, first, n);
    std::byte* const matrix =
        const_cast<std::byte*>(placed.data) +
        static_cast<std::size_t>(rows.first / in_matrix) * placed.matrix_bytes;
    const buffer mine(*this, some.bytes);
    kernels::pack_rows(placed.format, from, n, columns, some.planes(mine.data()));
    mine.send(some, matrix);
    from += static_cast<std::size_t>(n) * bytes_of_row;
    rows = {rows.first + n, rows.count - n};
  }
}

weight_uploads::buffer::buffer(weight_uploads& owner, std::size_t bytes)
    : owner_(owner), staging_(owner.take(bytes)) {}

weight_uploads::buffer::~buffer() {
  {
    const std::lock_guard lock(owner_.guard_);
    staging_.taken = false;
  }
  owner_.freed_.notify_one();
}

void weight_uploads::buffer::send(const kernels::packed_rows& rows, std::byte* matrix) const {
  const auto lock = owner_.device_->lock();
  staging_.on_its_way = true;  // some of it is, if the rest fails
  for (const kernels::packed_piece& piece : rows.pieces) {
    owner_.device_->upload(gpu::queue_id::copy, matrix + piece.to,
                           staging_.memory.data() + piece.from, piece.bytes);
  }
}

weight_uploads::staging& weight_uploads::take(std::size_t bytes) {
  std::unique_lock lock(guard_);
  staging* chosen = nullptr;
  const auto is_free = [&] {
    for (const bool sent : {false, true}) {
      for (const auto& b : buffers_) {
        if (!b->taken && b->on_its_way == sent) {
          chosen = b.get();
          return true;
        }
      }
      if (!sent && buffers_.size() < most_buffers) {
        chosen = buffers_.emplace_back(std::make_unique<staging>()).get();
        return true;
      }
    }
    return false;
  };
  freed_.wait(lock, is_free);
  chosen->taken = true;
  const auto device = device_->lock();
  try {
    if (chosen->on_its_way) {
      // what was sent before it has arrived, too
      device_->finish(gpu::queue_id::copy);
      for (const auto& b : buffers_) b->on_its_way = b->on_its_way && b->taken;
      chosen->on_its_way = false;
    }
    if (chosen->memory.bytes() < bytes) {
      chosen->memory = gpu_memory(device_, gpu_memory::kind::host, bytes, "weights in transfer");
    }
  } catch (...) {
    chosen->taken = false;
    freed_.notify_one();
    throw;
  }
  return *chosen;
}

void weight_uploads::finish() {
  const std::lock_guard lock(guard_);
  const auto device = device_->lock();
  device_->finish(gpu::queue_id::copy);
  buffers_.clear();
}

}  // namespace nibble::inline NIBBLE_ABI

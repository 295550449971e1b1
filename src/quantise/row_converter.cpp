#include "quantise/row_converter.hpp"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <nibble/base/concat.hpp>
#include <nibble/formats/decode.hpp>
#include <nibble/quantise/rows.hpp>

namespace nibble::inline NIBBLE_ABI {
namespace {

constexpr std::uint64_t copy_bytes = 1 << 20;
// Below this no format overflows: the narrowest is F16, whose greatest number is 65504.
constexpr float surely_fits = 60000.0f;

[[noreturn]] void refuse(const gguf::file& file, const gguf::tensor_info& tensor,
                         const std::string& sentence) {
  throw error(errc::bad_file, sentence,
              {.file = file.name(), .tensor = gguf::printable(tensor.name)});
}

// The greatest magnitude; throws for values that are not finite. `first`: the index of values[0].
float check_finite(const gguf::file& file, const gguf::tensor_info& tensor,
                   std::span<const float> values, std::uint64_t first) {
  float most = 0;
  bool finite = true;
  for (const float x : values) {
    finite = finite && std::isfinite(x);
    most = std::max(most, std::fabs(x));
  }
  if (finite) return most;
  while (std::isfinite(values.front())) {
    values = values.subspan(1);
    ++first;
  }
  const std::uint64_t columns = tensor.view.shape.columns();
  refuse(file, tensor,
         concat("row ", first / columns, ", column ", first % columns, " is ", values.front(),
                "; a model's weights must be finite"));
}

bool holds_floats(format_id id) {
  const auto* const info = find_format_info(id);
  return has_format(id) && info->block_size == 1;
}

}  // namespace

row_converter::row_converter(thread_team& team, const gguf::file& file, std::stop_token cancel)
    : team_(team),
      file_(file),
      cancel_(std::move(cancel)),
      scratch_(static_cast<std::size_t>(team.size())) {}

row_converter::layout row_converter::lay_out(const conversion& what) {
  const nibble::shape& s = what.from->view.shape;
  layout l{};
  l.columns = s.columns();
  l.rows_per_matrix = s.extent[1];
  l.rows_per_chunk =
      std::max<std::uint64_t>(1, chunk_values / std::max<std::uint64_t>(1, l.columns));
  l.chunks_per_matrix =
      l.rows_per_matrix / l.rows_per_chunk + (l.rows_per_matrix % l.rows_per_chunk != 0);
  l.chunks = l.columns == 0 ? 0 : l.chunks_per_matrix * s.extent[2] * s.extent[3];
  l.row_bytes_from = row_bytes(what.from->view.format, l.columns);
  l.row_bytes_to = row_bytes(what.to, l.columns);
  return l;
}

row_converter::rows row_converter::rows_of(const layout& l, std::uint64_t chunk) {
  const std::uint64_t matrix = chunk / l.chunks_per_matrix;
  const std::uint64_t inside = chunk % l.chunks_per_matrix * l.rows_per_chunk;
  return {matrix * l.rows_per_matrix + inside,
          std::min(l.rows_per_chunk, l.rows_per_matrix - inside), matrix};
}

void row_converter::convert_rows(const conversion& what, const layout& l, const rows& r,
                                 scratch& own, std::span<std::byte> out) const {
  const tensor_view& view = what.from->view;
  std::vector<float>& values = own.values;
  values.resize(r.count * l.columns);
  const auto stored =
      file_.read(*what.from, r.first * l.row_bytes_from, r.count * l.row_bytes_from, own.stored);
  decode_row(view.format, stored.data(), values.size(), values.data());
  const float most = check_finite(file_, *what.from, values, r.first * l.columns);

  std::vector<float> weights;
  if (what.weights != nullptr) {
    weights = what.weights->weights(r.matrix, view.shape.extent[2] * view.shape.extent[3]);
    // inputs that are always 0 say nothing about which errors matter
    if (std::none_of(weights.begin(), weights.end(), [](float w) { return w > 0; }))
      weights.clear();
  }
  quantise_rows(what.to, values, static_cast<std::int64_t>(l.columns), weights, out);

  if (most < surely_fits) return;
  decode_row(what.to, out.data(), values.size(), values.data());
  // a scale that has no room becomes infinite, or the greatest there is
  float kept = 0;
  bool finite = true;
  for (const float x : values) {
    finite = finite && std::isfinite(x);
    kept = std::max(kept, std::fabs(x));
  }
  if (!finite || kept < most / 4) {
    refuse(file_, *what.from,
           concat("rows ", r.first, " to ", r.first + r.count - 1, " reach ", most,
                  ", which is more than ", format_name(what.to), " can hold; bf16 and f32 can"));
  }
}

void row_converter::convert(const conversion& what, const gguf::byte_sink& sink,
                            const std::function<void(std::uint64_t)>& done) {
  const layout l = lay_out(what);
  const auto threads = static_cast<std::uint64_t>(team_.size());
  const std::uint64_t per_wave = threads * chunks_per_thread;
  const auto begin_of = [&](std::uint64_t chunk) {  // in rows
    return chunk < l.chunks ? rows_of(l, chunk).first : what.from->view.shape.rows();
  };
  std::span<const std::byte> made;  // the wave before, not yet written
  for (std::uint64_t first = 0, wave = 0; first < l.chunks; first += per_wave, ++wave) {
    check_cancel();
    const std::uint64_t last = std::min(first + per_wave, l.chunks);
    const std::uint64_t begin = begin_of(first), end = begin_of(last);
    std::vector<std::byte>& out = waves_[wave % 2];
    out.resize((end - begin) * l.row_bytes_to);
    std::atomic<std::uint64_t> next{first};
    team_.run([&](int thread) {
      if (thread == 0 && !made.empty()) sink(made);
      for (std::uint64_t chunk = next++; chunk < last && !cancel_.stop_requested();
           chunk = next++) {
        const rows r = rows_of(l, chunk);
        convert_rows(
            what, l, r, scratch_[static_cast<std::size_t>(thread)],
            std::span(out).subspan((r.first - begin) * l.row_bytes_to, r.count * l.row_bytes_to));
      }
    });
    check_cancel();  // before bytes are used that may not be there
    made = out;
    done((end - begin) * l.row_bytes_from);
  }
  if (!made.empty()) sink(made);
}

void row_converter::copy(const gguf::tensor_info& tensor, const gguf::byte_sink& sink,
                         const std::function<void(std::uint64_t)>& done) {
  const bool check = holds_floats(tensor.view.format);
  const std::uint64_t value_bytes = find_format_info(tensor.view.format)->block_bytes;
  for (std::uint64_t at = 0; at < tensor.bytes; at += copy_bytes) {
    check_cancel();
    const std::uint64_t size = std::min(copy_bytes, tensor.bytes - at);
    const auto bytes = file_.read(tensor, at, size, scratch_[0].stored);
    if (check) {
      std::vector<float>& values = scratch_[0].values;
      values.resize(size / value_bytes);
      decode_row(tensor.view.format, bytes.data(), values.size(), values.data());
      check_finite(file_, tensor, values, at / value_bytes);
    }
    sink(bytes);
    done(size);
  }
}

void row_converter::check_cancel() const {
  if (cancel_.stop_requested()) {
    throw error(errc::cancelled, "quantising was cancelled; nothing was written.");
  }
}

}  // namespace nibble::inline NIBBLE_ABI

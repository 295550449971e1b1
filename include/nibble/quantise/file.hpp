// Quantises a whole model file: any format to any other, as a stream. What is in memory at a time
// is some chunks of rows, whatever the size of the model and of its tensors.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <nibble/base/config.hpp>
#include <nibble/base/error.hpp>
#include <nibble/gguf/file.hpp>
#include <nibble/gguf/writer.hpp>
#include <nibble/quantise/imatrix.hpp>
#include <nibble/quantise/mix.hpp>
#include <optional>
#include <stop_token>
#include <string>
#include <vector>

namespace nibble::inline NIBBLE_ABI {

struct quantise_options {
  // Which tensor gets which format. mix.importance is set by `importance` below.
  mix_options mix;
  // Weights the errors of the tensors that it names; null: all errors count alike. Lives until the
  // work is done.
  const imatrix* importance = nullptr;
  // Written to the output's metadata, if it is not empty; bytes that are no UTF-8 as \xHH.
  std::string importance_name;
  std::int32_t threads = 0;          // 0: as model_options does it. The bytes do not depend on it.
  std::uint64_t max_part_bytes = 0;  // as gguf::write_options has it
  std::stop_token cancel = {};
};

// What becomes of one tensor.
struct quantised_tensor {
  std::string name;
  nibble::shape shape;
  format_id from{}, to{};
  std::uint64_t bytes_from = 0, bytes_to = 0;
  // The format that was wanted, where rows of this length cannot have it.
  std::optional<format_id> instead_of;
  bool converted = false;   // otherwise its bytes are copied
  bool has_errors = false;  // converted to a format of blocks, whose errors importance can weigh
  bool weighted = false;    // by the importance matrix, where some of its sums are not 0
};

// What quantise_file is going to do, or has done.
struct quantise_report {
  std::vector<quantised_tensor> tensors;       // in the order of the file
  std::vector<gguf::output_part> parts;        // the files: names, and sizes to the byte
  std::uint64_t bytes_from = 0, bytes_to = 0;  // of all tensors, without metadata and padding
  std::vector<std::string> unused_importance;  // names in the importance matrix that no tensor has

  NIBBLE_API std::uint64_t weights() const;  // the number of them, in all tensors
  NIBBLE_API std::uint64_t file_bytes() const;
};

struct quantise_progress {
  std::uint64_t done = 0, total = 0;  // bytes of the input's tensors
  std::string_view tensor;            // the one at work
};

// The plan alone; reads no tensor data (a file opened for its header only will do) and writes
// nothing. Throws what quantise_file throws before its work begins.
NIBBLE_API quantise_report plan_quantise(const gguf::file& input,
                                         const std::filesystem::path& output,
                                         const quantise_options& options);

// Writes `output` (or its parts, see gguf::writer::write), which gets its name when it is whole.
// All metadata is kept; general.file_type and general.quantization_version are set. `progress` is
// called on the calling thread, with 0 first, then after some MB each, with the total last. Throws
// error:
//   invalid_argument  an unknown type, a pattern that matches nothing, an output that is a part of
//                     the input or has no name, importance of another length than a tensor's rows
//                     (with the tensor), for none of the tensors, of another model as far as it
//                     states one and the input has its data, or of sums that are all 0
//   unsupported       a tensor of a type that nibble only copies would have to be converted
//   bad_file          a tensor has values that are not finite, or too large for its new format
//   cancelled         `cancel` was requested; nothing is left behind
//   io                see gguf::writer::write
NIBBLE_API quantise_report quantise_file(
    const gguf::file& input, const std::filesystem::path& output, const quantise_options& options,
    const std::function<void(const quantise_progress&)>& progress = {});
NIBBLE_API quantise_report
quantise_file(const std::filesystem::path& input, const std::filesystem::path& output,
              const quantise_options& options,
              const std::function<void(const quantise_progress&)>& progress = {});

}  // namespace nibble::inline NIBBLE_ABI

// The importance matrix: how strongly each input of each matrix is excited by real text. Encoders
// weight their errors with it. Files of the two kinds that llama.cpp has written: GGUF, and the
// older .dat.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <nibble/base/config.hpp>
#include <nibble/base/error.hpp>
#include <nibble/gguf/file.hpp>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace nibble::inline NIBBLE_ABI {

// What was seen of one tensor's inputs. A tensor of experts holds one matrix for each, and each
// saw tokens of its own.
struct importance {
  std::vector<float> in_sum2;  // [matrices, columns]: sums of the squared inputs
  // [matrices]: tokens in those sums; one number alone holds for all matrices (.dat files do not
  // tell experts apart)
  std::vector<float> counts;

  // The mean square of each input of matrix `index` of `matrices`: [columns]. All 1 if that matrix
  // saw no token, so that its errors count alike.
  // Throws error(invalid_argument) if in_sum2 does not divide into so many matrices.
  NIBBLE_API std::vector<float> weights(std::uint64_t index, std::uint64_t matrices) const;
  // Whether all sums are 0, or all counts, so that nothing is known.
  NIBBLE_API bool says_nothing() const;
};

struct imatrix {
  std::map<std::string, importance, std::less<>> tensors;  // by name: "blk.0.attn_q.weight"
  // Where the text came from. Bytes that are no UTF-8 are written as \xHH.
  std::vector<std::string> datasets;
  std::uint32_t chunk_count = 0;
  std::uint32_t chunk_size = 0;  // tokens in a chunk; 0 if the file does not say
  // What only nibble's own files say, else empty: model_fingerprint of the model that it was made
  // with, and the fingerprint of the tokens of all chunks.
  std::string model, chunks;
};

// The same for a model in any format, and hardly the same for two models: of the tensors' names and
// shapes, and of the values of those with one dimension, such as the gains of norms, which are kept
// where a model is quantised. Only training that changes none of these (adapters) is not noticed.
// Empty for a file without its tensors' data.
NIBBLE_API std::string model_fingerprint(const gguf::file& model);

// Throws error(invalid_argument) unless the matrix may be one of this model: some of its tensors
// are there, those with as many columns and matrices; it does not state another model; and some sum
// is not 0. `name` stands for the matrix in errors, if it is not empty.
NIBBLE_API void check_importance(const gguf::file& model, const imatrix& m, std::string_view name);

// Reads either kind; the first bytes tell which. Throws error: io; bad_file for what is neither,
// for sums without counts or of other lengths, for numbers that are negative or not finite; naming
// tensor and byte.
NIBBLE_API imatrix read_imatrix(const std::filesystem::path& path);
// From memory; `name` stands for the path in errors.
NIBBLE_API imatrix read_imatrix(std::span<const std::byte> bytes, const std::string& name);

// Writes the GGUF kind: general.type "imatrix", imatrix.datasets, imatrix.chunk_count,
// imatrix.chunk_size, nibble.imatrix.model, nibble.imatrix.chunks, and for each tensor NAME.in_sum2
// [columns, matrices] and NAME.counts [1, matrices], both F32. The file gets its name when it is
// whole. Throws error: io; invalid_argument for entries that read_imatrix would refuse and for
// names above 56 bytes.
NIBBLE_API void write_imatrix(const imatrix& m, const std::filesystem::path& path);
// The same in memory.
NIBBLE_API std::vector<std::byte> imatrix_bytes(const imatrix& m);

}  // namespace nibble::inline NIBBLE_ABI

// Made-up vocabularies in the manner of the families of models.
#pragma once

#include <cstdint>
#include <functional>
#include <nibble/gguf/writer.hpp>
#include <string>
#include <string_view>

namespace synth {

// More tokens would not fit into a file's header.
inline constexpr std::int32_t most_tokens = 1 << 20;

// Sets the keys tokenizer.* for a vocabulary of `size` tokens. It encodes every UTF-8 text and
// gives it back (the families of SentencePiece's kind take U+2581 for a space, as all of their kind
// do). At the family's published size its special tokens have their published ids. Throws
// nibble::error (invalid_argument) for a family that is not known or a size that is too small for
// it or too large. check() is called now and then, and may throw to end the work.
void write_vocabulary(nibble::gguf::writer& out, std::string_view family, std::int32_t size,
                      const std::function<void()>& check);

// "llama-bpe, qwen2, ...".
std::string vocabulary_families();

}  // namespace synth

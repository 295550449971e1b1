// Makes a GGUF file in memory that holds metadata only.
#pragma once

#include <cstdint>
#include <memory>
#include <nibble/gguf/file.hpp>
#include <nibble/gguf/writer.hpp>
#include <nibble/text/tokenizer.hpp>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace test {

class vocabulary_file {
 public:
  vocabulary_file& text(std::string_view key, std::string_view value) {
    writer_->set(key, value);
    return *this;
  }
  vocabulary_file& number(std::string_view key, std::int32_t value) {
    writer_->set(key, value);
    return *this;
  }
  vocabulary_file& flag(std::string_view key, bool value) {
    writer_->set(key, value);
    return *this;
  }
  template <typename T>
  vocabulary_file& array(std::string_view key, const std::vector<T>& values) {
    writer_->set_array(key, std::span<const T>(values));
    return *this;
  }

  std::vector<std::byte> bytes() const { return writer_->to_bytes(); }

  nibble::tokenizer tokenizer() const {
    const auto all = bytes();
    return nibble::tokenizer(nibble::gguf::file(all, "made.gguf"));
  }

 private:
  std::shared_ptr<nibble::gguf::writer> writer_ = std::make_shared<nibble::gguf::writer>();
};

}  // namespace test

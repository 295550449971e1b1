#include <algorithm>
#include <nibble/base/concat.hpp>
#include <nibble/base/utf8.hpp>
#include <nibble/formats/list.hpp>
#include <nibble/quantise/file.hpp>
#include <nibble/quantise/rows.hpp>
#include <system_error>
#include <utility>

#include "base/memory_for.hpp"
#include "device/host_probe.hpp"
#include "quantise/row_converter.hpp"

namespace nibble::inline NIBBLE_ABI {
namespace {

constexpr std::uint32_t quantization_version = 2;  // of the blocks' layouts; all files have 2 today

// The importance of a tensor, if the matrix has some.
const importance* importance_of(const gguf::tensor_info& tensor, const imatrix* m) {
  if (m == nullptr) return nullptr;
  const auto found = m->tensors.find(tensor.name);
  return found == m->tensors.end() || found->second.says_nothing() ? nullptr : &found->second;
}

std::vector<tensor_choice> choices_for(const gguf::file& input, const quantise_options& options) {
  std::vector<mix_tensor> tensors;
  tensors.reserve(input.tensors().size());
  for (const gguf::tensor_info& t : input.tensors()) tensors.push_back({t.name, t.view.shape});
  mix_options mix = options.mix;
  mix.importance = options.importance != nullptr;
  return choose_formats(read_mix_model(input), tensors, mix);
}

quantised_tensor plan_tensor(const gguf::file& input, const gguf::tensor_info& tensor,
                             const tensor_choice& choice, const quantise_options& options) {
  quantised_tensor out;
  out.name = std::string(tensor.name);
  out.shape = tensor.view.shape;
  out.from = tensor.view.format;
  out.to = choice.to.value_or(out.from);
  out.instead_of = choice.instead_of;
  out.converted = out.to != out.from;
  out.bytes_from = tensor.bytes;
  if (out.converted && !has_format(out.from)) {
    throw error(errc::unsupported,
                concat("its type ", format_name(out.from), " can be copied and not converted; ",
                       "leave it as it is (a pattern of the option `leave`), or start from a file ",
                       "in f16 or f32"),
                {.file = input.name(), .tensor = gguf::printable(tensor.name)});
  }
  // shapes come from a file, but rows of the new length fit where rows of floats would
  out.bytes_to =
      out.converted ? row_bytes(out.to, out.shape.columns()) * out.shape.rows() : tensor.bytes;
  // plain floats have no errors worth weighing
  out.has_errors = out.converted && find_format_info(out.to)->block_size > 1;
  out.weighted = out.has_errors && importance_of(tensor, options.importance) != nullptr;
  return out;
}

// Names in the importance matrix that no tensor has.
std::vector<std::string> unused_importance(const gguf::file& input, const imatrix* m) {
  std::vector<std::string> out;
  if (m == nullptr) return out;
  for (const auto& [name, entry] : m->tensors) {
    if (input.find_tensor(name) == nullptr) out.push_back(name);
  }
  return out;
}

// Keys by which llama.cpp's files say how they were weighted.
void set_importance_keys(gguf::writer& out, const quantise_options& options) {
  if (options.importance == nullptr || options.importance_name.empty()) return;
  const imatrix& m = *options.importance;
  out.set("quantize.imatrix.file", as_utf8(options.importance_name));
  if (!m.datasets.empty()) out.set("quantize.imatrix.dataset", as_utf8(m.datasets.front()));
  out.set("quantize.imatrix.entries_count", static_cast<std::uint32_t>(m.tensors.size()));
  out.set("quantize.imatrix.chunks_count", m.chunk_count);
}

// Plan and work; the writer's sources refer to this.
class quantiser {
 public:
  quantiser(const gguf::file& input, const quantise_options& options)
      : input_(input), options_(options), writer_(static_cast<std::uint32_t>(input.alignment())) {
    if (options.importance != nullptr) {
      check_importance(input, *options.importance, options.importance_name);
    }
    const auto choices = choices_for(input, options);
    writer_.copy_metadata(input);
    writer_.set("general.file_type", find_type_mix(options.mix.type)->file_type);
    writer_.set("general.quantization_version", quantization_version);
    set_importance_keys(writer_, options);
    report_.unused_importance = unused_importance(input, options.importance);
    report_.tensors.reserve(choices.size());
    for (std::size_t i = 0; i < choices.size(); ++i) {
      const gguf::tensor_info& tensor = input.tensors()[i];
      report_.tensors.push_back(plan_tensor(input, tensor, choices[i], options));
      const quantised_tensor& t = report_.tensors.back();
      report_.bytes_from += t.bytes_from;
      report_.bytes_to += t.bytes_to;
      writer_.add_tensor(t.name, t.to, t.shape,
                         [this, i](const gguf::byte_sink& sink) { emit(i, sink); });
    }
  }
  quantiser(const quantiser&) = delete;
  quantiser& operator=(const quantiser&) = delete;

  quantise_report plan(const std::filesystem::path& output) {
    if (output.empty()) {
      throw error(errc::invalid_argument,
                  "the name of the file to write is empty; a name was expected.");
    }
    report_.parts = writer_.parts(output, write_options());
    for (const auto& part : report_.parts) {
      for (const auto& path : input_.paths()) {
        std::error_code absent;
        if (!std::filesystem::equivalent(part.path, path, absent)) continue;
        throw error(errc::invalid_argument,
                    concat("this is the input, or a part of it (", path.string(),
                           "), and would be lost; another name is needed"),
                    {.file = part.path.string()});
      }
    }
    return report_;
  }

  void write(const std::filesystem::path& output,
             const std::function<void(const quantise_progress&)>& progress) {
    for (const gguf::tensor_info& t : input_.tensors())
      static_cast<void>(input_.data(t));  // is there
    thread_team team(resolve_threads(read_thread_sources(options_.threads)));
    row_converter converter(team, input_, options_.cancel);
    converter_ = &converter;
    progress_ = &progress;
    tell({});
    writer_.write(output, write_options());
  }

 private:
  gguf::write_options write_options() const {
    return {.max_part_bytes = options_.max_part_bytes, .header_only = false};
  }

  void tell(std::string_view tensor) const {
    if (*progress_) (*progress_)({done_, report_.bytes_from, tensor});
  }

  void emit(std::size_t index, const gguf::byte_sink& sink) {
    const gguf::tensor_info& tensor = input_.tensors()[index];
    const quantised_tensor& plan = report_.tensors[index];
    const auto done = [&](std::uint64_t bytes) {
      done_ += bytes;
      tell(tensor.name);
    };
    if (!plan.converted) return converter_->copy(tensor, sink, done);
    const importance* const weights =
        plan.weighted ? importance_of(tensor, options_.importance) : nullptr;
    converter_->convert({&tensor, plan.to, weights}, sink, done);
  }

  const gguf::file& input_;
  const quantise_options& options_;
  gguf::writer writer_;
  quantise_report report_;
  std::uint64_t done_ = 0;
  row_converter* converter_ = nullptr;
  const std::function<void(const quantise_progress&)>* progress_ = nullptr;
};

}  // namespace

std::uint64_t quantise_report::weights() const {
  std::uint64_t sum = 0;
  for (const quantised_tensor& t : tensors) sum += t.shape.elements();
  return sum;
}

std::uint64_t quantise_report::file_bytes() const {
  std::uint64_t sum = 0;
  for (const gguf::output_part& part : parts) sum += part.bytes;
  return sum;
}

quantise_report plan_quantise(const gguf::file& input, const std::filesystem::path& output,
                              const quantise_options& options) {
  return with_memory_for("quantising", [&] { return quantiser(input, options).plan(output); });
}

quantise_report quantise_file(const gguf::file& input, const std::filesystem::path& output,
                              const quantise_options& options,
                              const std::function<void(const quantise_progress&)>& progress) {
  return with_memory_for("quantising", [&] {
    quantiser work(input, options);
    auto report = work.plan(output);
    work.write(output, progress);
    return report;
  });
}

quantise_report quantise_file(const std::filesystem::path& input,
                              const std::filesystem::path& output, const quantise_options& options,
                              const std::function<void(const quantise_progress&)>& progress) {
  return quantise_file(gguf::file(input), output, options, progress);
}

}  // namespace nibble::inline NIBBLE_ABI

#include "device/gpu_device.hpp"

#include <nibble/base/concat.hpp>
#include <nibble/base/error.hpp>

namespace nibble::inline NIBBLE_ABI {
namespace {

const char* prefix_of(gpu::module_kind kind) {
  switch (kind) {
    case gpu::module_kind::cuda:
      return "cuda";
    case gpu::module_kind::hip:
      return "hip";
    case gpu::module_kind::emulated:
      return "emulated";
  }
  return "";
}

errc code_of(gpu::fault fault) {
  switch (fault) {
    case gpu::fault::out_of_memory:
      return errc::out_of_memory;
    case gpu::fault::no_driver:
    case gpu::fault::old_driver:
    case gpu::fault::no_device:
    case gpu::fault::old_device:
      return errc::unsupported;
    case gpu::fault::invalid:
      return errc::invalid_argument;
    default:
      return errc::device;
  }
}

}  // namespace

std::string gpu_id(gpu::module_kind kind, std::int32_t index) {
  return concat(prefix_of(kind), index);
}

std::string gpu_name(const std::string& id, const gpu::device_facts& facts) {
  return concat(id, " (", facts.name, ")");
}

device_kind device_kind_of(gpu::module_kind kind) {
  switch (kind) {
    case gpu::module_kind::cuda:
      return device_kind::cuda;
    case gpu::module_kind::hip:
      return device_kind::hip;
    case gpu::module_kind::emulated:
      break;
  }
  return device_kind::emulated;
}

gpu_memory::gpu_memory(std::shared_ptr<gpu_device> device, kind what, std::size_t bytes,
                       const char* purpose)
    : device_(std::move(device)), kind_(what), bytes_(bytes) {
  if (bytes == 0) return;
  const std::string doing = concat("memory for ", purpose, ", ", bytes, " bytes");
  const auto lock = device_->lock();
  gpu::failure why;
  void* memory = nullptr;
  const bool done = kind_ != kind::host ? device_->context_->allocate(bytes, memory, why)
                                        : device_->context_->allocate_pinned(bytes, memory, why);
  device_->check(done, why, doing.c_str());  // nothing else may throw from here on
  data_ = static_cast<std::byte*>(memory);
  counted_ = tally_entry(device_->tally(), kind_, bytes);
}

void gpu_memory::release() noexcept {
  if (!data_) return;
  const auto lock = device_->lock();
  if (kind_ != kind::host) {
    device_->context_->release(data_);
  } else {
    device_->context_->release_pinned(data_);
  }
  data_ = nullptr;
  counted_ = {};
}

gpu_memory::~gpu_memory() {
  release();
}

gpu_memory::gpu_memory(gpu_memory&& other) noexcept
    : device_(std::move(other.device_)),
      kind_(other.kind_),
      data_(std::exchange(other.data_, nullptr)),
      bytes_(std::exchange(other.bytes_, 0)),
      counted_(std::move(other.counted_)) {}

gpu_memory& gpu_memory::operator=(gpu_memory&& other) noexcept {
  if (this == &other) return *this;
  release();
  device_ = std::move(other.device_);
  kind_ = other.kind_;
  data_ = std::exchange(other.data_, nullptr);
  bytes_ = std::exchange(other.bytes_, 0);
  counted_ = std::move(other.counted_);
  return *this;
}

gpu_device::gpu_device(gpu::module& from, std::int32_t index)
    : kind_(from.kind()), id_(gpu_id(kind_, index)), name_(id_) {
  gpu::failure why;
  check(from.describe(index, facts_, why), why, "asking what it is");
  name_ = gpu_name(id_, facts_);
  check(from.open(index, context_, why), why, "opening it");
}

gpu_device::~gpu_device() {
  context_->close();
}

std::uint64_t gpu_device::free_bytes() {
  const auto held = lock();
  gpu::failure why;
  std::uint64_t bytes = 0;
  check(context_->free_bytes(bytes, why), why, "asking for its free memory");
  return bytes;
}

device_info gpu_device::info() {
  device_info info;
  info.kind = device_kind_of(kind_);
  info.id = id_;
  info.name = name_;
  info.total_bytes = facts_.total_bytes;
  info.free_bytes = free_bytes();
  return info;
}

void gpu_device::upload(gpu::queue_id queue, std::byte* to, const std::byte* from,
                        std::size_t bytes) {
  if (bytes == 0) return;
  gpu::failure why;
  check(context_->upload(queue, to, from, bytes, why), why, "an upload");
}

void gpu_device::download(gpu::queue_id queue, std::byte* to, const std::byte* from,
                          std::size_t bytes) {
  if (bytes == 0) return;
  gpu::failure why;
  check(context_->download(queue, to, from, bytes, why), why, "a download");
}

void gpu_device::copy(gpu::queue_id queue, std::byte* to, const std::byte* from,
                      std::size_t bytes) {
  if (bytes == 0) return;
  gpu::failure why;
  check(context_->copy(queue, to, from, bytes, why), why, "a copy");
}

void gpu_device::fill(gpu::queue_id queue, std::byte* to, std::uint8_t byte, std::size_t bytes) {
  if (bytes == 0) return;
  gpu::failure why;
  check(context_->fill(queue, to, byte, bytes, why), why, "filling memory");
}

void gpu_device::finish(gpu::queue_id queue) {
  gpu::failure why;
  check(context_->finish(queue, why), why, "waiting for it");
}

gpu::event_id gpu_device::mark(gpu::queue_id queue) {
  gpu::failure why;
  gpu::event_id& event = marks_[next_mark_];
  next_mark_ = 1 - next_mark_;
  if (event == 0) check(context_->make_event(event, why), why, "making an event");
  check(context_->record(queue, event, why), why, "recording an event");
  return event;
}

double gpu_device::seconds_between(gpu::event_id from, gpu::event_id to) {
  gpu::failure why;
  float milliseconds = 0;
  check(context_->elapsed(from, to, milliseconds, why), why, "reading the time");
  return static_cast<double>(milliseconds) / 1000;
}

void gpu_device::check_launches(const char* what) {
  gpu::failure why;
  check(context_->check_launches(why), why, what);
}

void gpu_device::begin_graph() {
  gpu::failure why;
  check(context_->begin_graph(why), why, "recording a graph");
}

gpu::graph_id gpu_device::end_graph() {
  gpu::failure why;
  gpu::graph_id graph = 0;
  check(context_->end_graph(graph, why), why, "recording a graph");
  return graph;
}

void gpu_device::abandon_graph() noexcept {
  gpu::failure why;
  gpu::graph_id graph = 0;
  if (context_->end_graph(graph, why)) context_->release_graph(graph);
}

void gpu_device::launch_graph(gpu::graph_id graph) {
  gpu::failure why;
  check(context_->launch_graph(graph, why), why, "launching a graph");
}

void gpu_device::release_graph(gpu::graph_id graph) noexcept {
  context_->release_graph(graph);
}

void gpu_device::fail(const gpu::failure& why, const char* doing) const {
  throw error(code_of(why.what), concat(doing, " failed: ", why.text), {.device = name_});
}

}  // namespace nibble::inline NIBBLE_ABI

// Brings a file's tensors to the devices that a placement gives them.
#pragma once

#include <atomic>
#include <deque>
#include <exception>
#include <functional>
#include <memory>
#include <nibble/base/config.hpp>
#include <nibble/device/backend.hpp>
#include <nibble/gguf/file.hpp>
#include <nibble/model/arch.hpp>
#include <thread>
#include <vector>

namespace nibble::inline NIBBLE_ABI {

// Imports tensors from several threads: reading a file that is not in memory yet, and copying one
// that is, are both faster so. The calling thread reports the progress.
class importer {
 public:
  explicit importer(const gguf::file& file) : file_(file) {}

  // Takes room on the device for the tensor. Returns the weight, which `weights` gets. `turn`: of
  // the device's blocks, the one that reads it; looked at if the tensor stays on disk.
  const weight* place(const tensor_need& need, backend& device, std::deque<weight>& weights,
                      std::size_t turn);
  // Fills everything that was placed and does not stay on disk. Rethrows what the first failure
  // threw, also of `progress`.
  void run(const std::function<void(double)>& progress);

 private:
  struct part {
    const tensor_need* need;
    backend* device;
    const weight* to;
    row_range rows;
  };

  void add_parts(const tensor_need& need, backend& device, const weight& to);
  std::vector<std::jthread> start_helpers();
  void work(const std::function<void(double)>& progress);
  void import(const part& p, std::vector<std::byte>& buffer);

  const gguf::file& file_;
  std::vector<part> parts_;
  std::atomic<std::size_t> next_ = 0, done_ = 0;
  std::atomic<bool> failed_ = false;
  std::exception_ptr failure_;  // written by the one thread that set failed_
};

}  // namespace nibble::inline NIBBLE_ABI

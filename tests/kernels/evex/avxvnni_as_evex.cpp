// The kernels for AVX-VNNI, assembled by the script beside this file: processors with AVX-512-VNNI
// but no AVX-VNNI can test them, too.
#include "cpu/table_of.hpp"

namespace test {

const nibble::cpu::kernel_table& avxvnni_as_evex() {
  using namespace nibble;
  static constexpr cpu::kernel_table table =
      kernels::make_table<kernels::avxvnni>("avxvnni", all_formats{});
  return table;
}

}  // namespace test

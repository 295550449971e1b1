#include "cpu/table_of.hpp"
NIBBLE_DEFINE_KERNELS(neon)

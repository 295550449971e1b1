# Cross-compiles for 64-bit ARM with Debian's g++-aarch64-linux-gnu; tests run under qemu-user.
# The compiler also looks into /usr/include, which is right for the headers that are the same on
# every processor (xsimd, Eigen, Catch2, nlohmann-json) and all that is used with it.

set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_CXX_COMPILER aarch64-linux-gnu-g++)
# which processor: the environment variable QEMU_CPU, or the one that has everything
set(CMAKE_CROSSCOMPILING_EMULATOR qemu-aarch64 -L /usr/aarch64-linux-gnu)

# Debian keeps xsimd's description in the library folder of the machine that compiles.
file(GLOB nibble_xsimd_folders /usr/lib/*/cmake/xsimd)
if(nibble_xsimd_folders)
  list(GET nibble_xsimd_folders 0 xsimd_DIR)
endif()

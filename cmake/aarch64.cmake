# A toolchain for 64-bit ARM Linux, and the emulator that runs the tests built with it
# (emulated.cmake).
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_C_COMPILER aarch64-linux-gnu-gcc)
set(MLXBENCH_EMULATOR qemu-aarch64 -L /usr/aarch64-linux-gnu)
set(MLXBENCH_EMULATED neon:cortex-a53 dotprod:neoverse-n1 i8mm:max)

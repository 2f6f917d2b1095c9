# A toolchain for other systems: zig as the compiler, with the libraries that scripts/cross/build.sh
# put into build-cross/TARGET/prefix. MLXBENCH_TARGET is macos-arm64, macos-x64, linux-x64 or
# linux-arm64.
list(APPEND CMAKE_TRY_COMPILE_PLATFORM_VARIABLES MLXBENCH_TARGET)
get_filename_component(cross ${CMAKE_CURRENT_LIST_DIR}/../../build-cross/${MLXBENCH_TARGET} ABSOLUTE)

if(MLXBENCH_TARGET MATCHES "^macos-")
  set(CMAKE_SYSTEM_NAME Darwin)
  set(CMAKE_SYSTEM_VERSION 23.0.0) # macOS 14; without a version CMake writes no rpath
  set(CMAKE_OSX_DEPLOYMENT_TARGET "" CACHE STRING "") # the wrapper names it
  set(CMAKE_INSTALL_NAME_TOOL /bin/true CACHE FILEPATH "")
  set(CMAKE_BUILD_WITH_INSTALL_RPATH ON) # nothing here could change it later and sign the file again
  set(CMAKE_USER_MAKE_RULES_OVERRIDE ${CMAKE_CURRENT_LIST_DIR}/rpath.cmake)
else()
  set(CMAKE_SYSTEM_NAME Linux)
  set(CMAKE_EXE_LINKER_FLAGS_INIT -s) # what modules need of the program is in its table of dynamic symbols
endif()
if(MLXBENCH_TARGET MATCHES "-arm64$")
  set(CMAKE_SYSTEM_PROCESSOR arm64)
  if(CMAKE_SYSTEM_NAME STREQUAL Linux)
    set(CMAKE_SYSTEM_PROCESSOR aarch64)
  endif()
else()
  set(CMAKE_SYSTEM_PROCESSOR x86_64)
endif()

set(CMAKE_C_COMPILER ${cross}/bin/cc)
set(CMAKE_CXX_COMPILER ${cross}/bin/c++)
if(MLXBENCH_TARGET STREQUAL "linux-arm64") # GNU's C++ library, as MLX has it
  set(CMAKE_CXX_COMPILER aarch64-linux-gnu-g++)
  set(CMAKE_MODULE_LINKER_FLAGS_INIT -Wl,--allow-shlib-undefined) # what libmlx needs is in its own wheel
endif()
set(CMAKE_AR ${cross}/bin/ar CACHE FILEPATH "")
set(CMAKE_RANLIB ${cross}/bin/ranlib CACHE FILEPATH "")
set(CMAKE_FIND_ROOT_PATH ${cross}/prefix)
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
set(ENV{PKG_CONFIG_LIBDIR} ${cross}/prefix/lib/pkgconfig)
set(ENV{PKG_CONFIG_PATH} "")

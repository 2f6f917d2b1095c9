# The MLX engine's CUDA kernels in an emulator: tests that need MLX, but no GPU.
if(NOT TARGET mlxbench-mlx)
  return()
elseif(APPLE)
  message(STATUS "The CUDA kernels are not tested here: macOS has no CUDA, and no dependable ucontext")
  return()
elseif(MLXBENCH_SANITIZE)
  # Emulated threads swap stacks, which sanitizers take for errors; and libmlx is built without
  # them.
  message(STATUS "The CUDA kernels are not tested with sanitizers")
  return()
endif()

foreach(name test_cuda_kernels test_cuda_steps)
  add_executable(${name} EXCLUDE_FROM_ALL tests/cuda/${name}.cpp tests/cuda/emulator.cpp tests/cuda/cuda_kernel.cpp
    $<TARGET_OBJECTS:mlx-objects>)
  set_target_properties(${name} PROPERTIES CXX_STANDARD 20 CXX_STANDARD_REQUIRED ON CXX_EXTENSIONS OFF
    ENABLE_EXPORTS ON BUILD_WITH_INSTALL_RPATH ON INSTALL_RPATH ${mlx_rpath}) # exports: compiled kernels use the emulator
  target_compile_definitions(${name} PRIVATE CXX="${CMAKE_CXX_COMPILER}" CUDA_FOLDER="${CMAKE_SOURCE_DIR}/tests/cuda")
  target_include_directories(${name} SYSTEM PRIVATE ${MLX_INCLUDE})
  target_link_libraries(${name} PRIVATE core ${MLX_LIBRARY} PkgConfig::CMOCKA)
  add_test(NAME ${name} COMMAND ${name})
  list(APPEND test_programs ${name})
endforeach()

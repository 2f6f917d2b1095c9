# The MLX engine, as a module beside the program; left out, with a line that says so, where MLX is
# not installed. MLX is found in MLX_ROOT, in the Python package `mlx` (.venv's, then python3's), in
# .mlx, where `make run` puts it (scripts/get_mlx.py), or where Homebrew does. Its C++ interface
# changes with every release, so only the version below, which is also the tests', is taken - or
# any, where MLX_ROOT asks for it.
set(MLX_VERSION 0.32.4)
set(MLX_ROOT "" CACHE PATH "Folder of MLX with include/mlx and lib (default: searched)")

# The version of the headers in a folder, "" when there are none.
function(mlx_version_of folder out)
  set(version "")
  if(EXISTS ${folder}/include/mlx/version.h)
    foreach(part MAJOR MINOR PATCH)
      file(STRINGS ${folder}/include/mlx/version.h line REGEX "define MLX_VERSION_${part} [0-9]+")
      string(REGEX MATCH "[0-9]+$" number "${line}")
      list(APPEND version ${number})
    endforeach()
    list(JOIN version . version)
  endif()
  set(${out} "${version}" PARENT_SCOPE)
endfunction()

# Folders that may hold MLX, best first.
function(mlx_places out)
  foreach(python ${CMAKE_SOURCE_DIR}/.venv/bin/python python3)
    # Not from the build folder, where Python would take the link `mlx` below for the package.
    execute_process(COMMAND ${python} -m mlx --cmake-dir WORKING_DIRECTORY / OUTPUT_VARIABLE folder ERROR_QUIET
      RESULT_VARIABLE failed OUTPUT_STRIP_TRAILING_WHITESPACE)
    if(NOT failed)
      list(APPEND places ${folder})
    endif()
  endforeach()
  set(${out} ${places} ${CMAKE_SOURCE_DIR}/.mlx/mlx /opt/homebrew /usr/local PARENT_SCOPE)
endfunction()

function(find_mlx)
  if(MLX_ROOT)
    set(places ${MLX_ROOT})
  else()
    mlx_places(places)
  endif()
  unset(MLX_LIBRARY CACHE)
  foreach(place ${places})
    mlx_version_of(${place} version)
    if(version AND (MLX_ROOT OR version VERSION_EQUAL MLX_VERSION) AND NOT MLX_LIBRARY)
      set(MLX_INCLUDE ${place}/include PARENT_SCOPE)
      find_library(MLX_LIBRARY mlx PATHS ${place}/lib NO_DEFAULT_PATH)
    elseif(version)
      message(STATUS "MLX ${version} in ${place} is not ${MLX_VERSION}; -DMLX_ROOT=${place} tries it all the same")
    endif()
  endforeach()
endfunction()

if(MLXBENCH_SANITIZE MATCHES thread)
  message(STATUS "MLX itself is not built with the thread sanitizer: the engine mlx is left out")
  return()
endif()

find_mlx()
if(NOT MLX_LIBRARY)
  message(STATUS "MLX ${MLX_VERSION} was not found: the engine mlx is left out (make run installs it; or set MLX_ROOT)")
  return()
endif()

include(CheckLanguage)
check_language(CXX)
if(NOT CMAKE_CXX_COMPILER)
  message(STATUS "No C++ compiler: the engine mlx is left out")
  return()
endif()
enable_language(CXX)
if(NOT cxx_std_20 IN_LIST CMAKE_CXX_COMPILE_FEATURES)
  message(STATUS "${CMAKE_CXX_COMPILER} does not know C++20: the engine mlx is left out")
  return()
endif()
message(STATUS "The engine mlx is built against ${MLX_LIBRARY}")
set(CMAKE_CXX_FLAGS_RELEASE "-O3")

file(GLOB mlx_sources CONFIGURE_DEPENDS src/engine/mlx/*.cpp)
add_library(mlx-objects OBJECT ${mlx_sources}) # for the module, and for tests
set_target_properties(mlx-objects PROPERTIES CXX_STANDARD 20 CXX_STANDARD_REQUIRED ON CXX_EXTENSIONS OFF
  CXX_VISIBILITY_PRESET hidden POSITION_INDEPENDENT_CODE ON)
target_include_directories(mlx-objects PRIVATE src)
target_include_directories(mlx-objects SYSTEM PRIVATE ${MLX_INCLUDE})
target_link_libraries(mlx-objects PRIVATE flags)
add_library(mlxbench-mlx MODULE $<TARGET_OBJECTS:mlx-objects>)
set_target_properties(mlxbench-mlx PROPERTIES PREFIX "" LINKER_LANGUAGE CXX LIBRARY_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR})
if(APPLE)
  set_target_properties(mlxbench-mlx PROPERTIES SUFFIX ".dylib")
  target_link_options(mlxbench-mlx PRIVATE -undefined dynamic_lookup) # the program's own functions
endif()
target_link_libraries(mlxbench-mlx PRIVATE flags ${MLX_LIBRARY})
# The module looks for libmlx in mlx/lib beside itself: one relative path, whatever the folders'
# names are and wherever they are moved. In the build folder mlx is a link. An installed program
# must not need this checkout, so an MLX that lies in it is copied, with the folders of the
# libraries that its wheel has beside it; any other is linked to.
cmake_path(GET MLX_LIBRARY PARENT_PATH mlx_folder)
cmake_path(GET mlx_folder PARENT_PATH mlx_folder)
cmake_path(GET mlx_folder PARENT_PATH mlx_site)
file(CREATE_LINK "${mlx_folder}" "${CMAKE_BINARY_DIR}/mlx" SYMBOLIC)
set(MLXBENCH_MLX_RPATH mlx/lib CACHE STRING "Where the module looks for libmlx, from its own folder; elsewhere, MLX is not installed with it")
set(mlx_rpath $<IF:$<BOOL:${APPLE}>,@loader_path,$ORIGIN>/${MLXBENCH_MLX_RPATH})
set_target_properties(mlxbench-mlx PROPERTIES BUILD_WITH_INSTALL_RPATH ON INSTALL_RPATH ${mlx_rpath})
install(TARGETS mlxbench-mlx LIBRARY DESTINATION lib/mlxbench) # where the program looks for it
if(MLXBENCH_MLX_RPATH STREQUAL "mlx/lib")
  # What was there first: copying into a link of an earlier installation would change the MLX it
  # leads to.
  install(CODE [[
    set(folder "$ENV{DESTDIR}${CMAKE_INSTALL_PREFIX}/lib/mlxbench/mlx")
    file(REMOVE_RECURSE "${folder}")]])
  cmake_path(IS_PREFIX CMAKE_SOURCE_DIR "${mlx_folder}" mlx_is_here)
  if(mlx_is_here)
    file(GLOB mlx_needs "${mlx_site}/mlx_*.libs" "${mlx_site}/nvidia")
    install(DIRECTORY "${mlx_folder}/lib" "${mlx_folder}/include" DESTINATION lib/mlxbench/mlx USE_SOURCE_PERMISSIONS)
    install(DIRECTORY ${mlx_needs} DESTINATION lib/mlxbench USE_SOURCE_PERMISSIONS)
  else()
    install(CODE "file(CREATE_LINK [[${mlx_folder}]] \"\${folder}\" SYMBOLIC)")
  endif()
endif()
# One target is the whole program.
add_dependencies(mlxbench mlxbench-mlx)

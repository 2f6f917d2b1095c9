# The MLX engine, as a module beside the program; left out, with a line that says so, where MLX is not installed.
# MLX is found in MLX_ROOT, in the Python package `mlx` (.venv's, then python3's), in .mlx, where `make run` puts it
# (scripts/get_mlx.py), or where Homebrew does. Its C++ interface changes with every release, so only the version below,
# which is also the tests', is taken - or any, where MLX_ROOT asks for it.
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
    execute_process(COMMAND ${python} -m mlx --cmake-dir OUTPUT_VARIABLE folder ERROR_QUIET
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
# libmlx is used where it is: it finds its own libraries relative to itself.
get_filename_component(mlx_library_folder ${MLX_LIBRARY} DIRECTORY)
set_target_properties(mlxbench-mlx PROPERTIES BUILD_RPATH ${mlx_library_folder} INSTALL_RPATH ${mlx_library_folder})
install(TARGETS mlxbench-mlx LIBRARY DESTINATION lib/mlxbench) # where the program looks for it
# One target is the whole program.
add_dependencies(mlxbench mlxbench-mlx)

# Fuzz targets: one program per file of tests/fuzz, with the folders that read files from elsewhere
# and what they need. fuzz_NAME starts from the files in tests/fuzz/NAME; tests/fuzz/run.sh runs all
# of them.
list(FILTER sources INCLUDE REGEX "/src/(base|checkpoint|hub|results|sys|text)/")
add_library(core STATIC ${sources})
target_include_directories(core PUBLIC src)
target_compile_options(core PUBLIC -fsanitize=fuzzer-no-link)
target_link_libraries(core PUBLIC flags Threads::Threads PkgConfig::PCRE2 PkgConfig::UTF8PROC PkgConfig::CJSON m
  ${CMAKE_DL_LIBS})

file(GLOB targets CONFIGURE_DEPENDS tests/fuzz/fuzz_*.c)
foreach(file ${targets})
  get_filename_component(name ${file} NAME_WE)
  add_executable(${name} ${file})
  target_link_libraries(${name} PRIVATE core)
  target_link_options(${name} PRIVATE -fsanitize=fuzzer)
endforeach()

# The CPU engine and its unit tests without any library, for processors that an emulator stands in
# for. MLXBENCH_EMULATOR is its command; MLXBENCH_EMULATED are pairs TABLE:PROCESSOR: each table of
# kernels is tested on a processor that has what the table needs and little else. The first is the
# base of the others, which add products.
list(FILTER sources INCLUDE REGEX "/src/(base|engine)/")
list(FILTER sources EXCLUDE REGEX "/base/json(_canonical)?\\.c$") # need cJSON; no engine reads JSON
add_library(core STATIC ${sources})
target_include_directories(core PUBLIC src tests/unit/emulated)
target_compile_options(flags INTERFACE $<$<C_COMPILER_ID:GNU>:-Wno-maybe-uninitialized>) # loops that fill memory, seen as if they never ran
target_link_libraries(core PUBLIC flags Threads::Threads m ${CMAKE_DL_LIBS})

enable_testing()
file(GLOB tests CONFIGURE_DEPENDS tests/unit/test_kernels*.c tests/unit/test_engine*.c)
list(FILTER tests EXCLUDE REGEX "/test_engines_agree") # needs MLX
list(FILTER tests EXCLUDE REGEX "/test_kernels_attention\\.c$") # no table for ARM has attention of its own
list(FILTER tests EXCLUDE REGEX "/test_kernels_amx\\.c$") # x86
foreach(file ${tests})
  get_filename_component(name ${file} NAME_WE)
  add_executable(${name} ${file})
  target_link_libraries(${name} PRIVATE core)
  set(pairs ${MLXBENCH_EMULATED})
  if(NOT name MATCHES "^test_kernels_products$|^test_engine$|^test_engine_model$") # has nothing to do with products
    list(SUBLIST pairs 0 1 pairs)
  endif()
  foreach(pair ${pairs})
    string(REPLACE ":" ";" pair ${pair})
    list(GET pair 0 table)
    list(GET pair 1 processor)
    add_test(NAME ${name}-${table} COMMAND ${MLXBENCH_EMULATOR} -cpu ${processor} $<TARGET_FILE:${name}>)
    set_tests_properties(${name}-${table} PROPERTIES ENVIRONMENT MLXBENCH_CPU=${table})
  endforeach()
endforeach()

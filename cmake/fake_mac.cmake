# src/sys/macos.c and what is particular to macOS in src/base, run here against recorded Macs
# (tests/mac).
if(APPLE)
  return() # there macos.c runs for real, in test_hardware
endif()
add_executable(test_macos EXCLUDE_FROM_ALL tests/mac/test_macos.c tests/mac/fake_mac.c src/sys/macos.c src/sys/apple.c
  src/sys/facts.c)
target_include_directories(test_macos BEFORE PRIVATE tests/mac/include)
target_include_directories(test_macos PRIVATE src)
target_compile_definitions(test_macos PRIVATE MACHINES="${CMAKE_SOURCE_DIR}/tests/mac/machines")
target_link_libraries(test_macos PRIVATE flags PkgConfig::CMOCKA)
add_test(NAME test_macos COMMAND test_macos)
list(APPEND test_programs test_macos)

add_executable(test_mac_release EXCLUDE_FROM_ALL tests/mac/test_mac_release.c)
target_link_libraries(test_mac_release PRIVATE core PkgConfig::CMOCKA)
add_test(NAME test_mac_release COMMAND test_mac_release)
list(APPEND test_programs test_mac_release)

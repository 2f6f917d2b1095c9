# The man page and the completions for bash, zsh and fish, made when they are installed, by running
# the program; so not where it is built for another machine, and not without Python.
find_program(MLXBENCH_PYTHON NAMES python3)
if(CMAKE_CROSSCOMPILING OR NOT MLXBENCH_PYTHON)
  return()
endif()
set(pages ${CMAKE_BINARY_DIR}/pages)
install(CODE "execute_process(COMMAND \"${MLXBENCH_PYTHON}\" \"${CMAKE_SOURCE_DIR}/scripts/pages.py\"
  \"$<TARGET_FILE:mlxbench>\" \"${pages}\" COMMAND_ERROR_IS_FATAL ANY)")
install(FILES ${pages}/mlxbench.1 DESTINATION ${CMAKE_INSTALL_MANDIR}/man1)
install(FILES ${pages}/mlxbench.bash DESTINATION ${CMAKE_INSTALL_DATADIR}/bash-completion/completions RENAME mlxbench)
install(FILES ${pages}/_mlxbench DESTINATION ${CMAKE_INSTALL_DATADIR}/zsh/site-functions)
install(FILES ${pages}/mlxbench.fish DESTINATION ${CMAKE_INSTALL_DATADIR}/fish/vendor_completions.d)

# share/book.txt, the text of `--prompt-tokens book`, as a C array in the program: so it is there
# wherever the program is. Sets `book`, the source file.
set(book ${CMAKE_BINARY_DIR}/book.c)
set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/share/book.txt)
file(READ share/book.txt bytes HEX)
string(REGEX REPLACE "(................................)" "\\1\n" bytes ${bytes})
string(REGEX REPLACE "([0-9a-f][0-9a-f])" "0x\\1," bytes ${bytes})
file(CONFIGURE OUTPUT ${book} CONTENT "/* book.c - share/book.txt, by cmake/book.cmake. */
#include <stddef.h>

const unsigned char book_text[] = {
@bytes@};
const size_t book_length = sizeof book_text;
" @ONLY)

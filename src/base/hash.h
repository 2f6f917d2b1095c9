/* hash.h - SHA-1 and SHA-256, from OpenSSL's libcrypto (macOS: CommonCrypto).
 * libcrypto is opened at run time, like libcurl; both use the processor's instructions for them. */
#ifndef BASE_HASH_H
#define BASE_HASH_H

#include <stdbool.h>
#include <stddef.h>

typedef struct hasher hasher;

/* Opens the library. -1 with a message that says which package has it. */
int hash_open(void);

/* A new SHA-256, or SHA-1. NULL with a message. */
hasher *hash_new(bool sha256);
void hash_add(hasher *h, const void *data, size_t n);

/* The digest in hexadecimal digits, of 64 or 40; frees h. */
void hash_end(hasher *h, char hex[65]);
void hash_free(hasher *h); /* harmless on NULL */

#endif

/* hash.c - OpenSSL's EVP functions through dlopen; on macOS CommonCrypto, which is part of the
 * system. The EVP functions and their opaque types are as in OpenSSL 1.1 and 3, so its headers are
 * not needed. */
#include "base/base.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifdef __APPLE__
#include <CommonCrypto/CommonDigest.h>

struct hasher {
    bool sha256;
    CC_SHA256_CTX context256;
    CC_SHA1_CTX context1;
};

int hash_open(void) {
    return 0;
}

static int begin(hasher *h) {
    return h->sha256 ? !CC_SHA256_Init(&h->context256) : !CC_SHA1_Init(&h->context1);
}

static void update(hasher *h, const void *data, size_t n) {
    if (h->sha256)
        CC_SHA256_Update(&h->context256, data, (CC_LONG)n);
    else
        CC_SHA1_Update(&h->context1, data, (CC_LONG)n);
}

static size_t finish(hasher *h, unsigned char *digest) {
    if (h->sha256)
        CC_SHA256_Final(digest, &h->context256);
    else
        CC_SHA1_Final(digest, &h->context1);
    return h->sha256 ? 32 : 20;
}

void hash_free(hasher *h) {
    free(h);
}

#else
#include <dlfcn.h>

struct hasher {
    bool sha256;
    void *context;
};

static struct {
    void *library;
    void *(*new_context)(void);
    void (*free_context)(void *context);
    const void *(*sha1)(void), *(*sha256)(void);
    int (*init)(void *context, const void *type, void *engine);
    int (*update)(void *context, const void *data, size_t n);
    int (*final)(void *context, unsigned char *digest, unsigned *n);
} crypto;

static bool find(const char *name, void *function) {
    void *symbol = dlsym(crypto.library, name);
    memcpy(function, &symbol, sizeof symbol);
    return symbol != NULL;
}

int hash_open(void) {
    static const char *const names[] = {"libcrypto.so.3", "libcrypto.so.1.1"};
    for (size_t i = 0; i < sizeof names / sizeof *names && !crypto.library; i++)
        crypto.library = dlopen(names[i], RTLD_NOW | RTLD_LOCAL);
    if (!crypto.library)
        return fail(
            "hashes of files need OpenSSL's libcrypto, which is not installed; Debian and Ubuntu have "
            "it in the package libssl3");
    bool found = find("EVP_MD_CTX_new", &crypto.new_context) &&
                 find("EVP_MD_CTX_free", &crypto.free_context) && find("EVP_sha1", &crypto.sha1) &&
                 find("EVP_sha256", &crypto.sha256) && find("EVP_DigestInit_ex", &crypto.init) &&
                 find("EVP_DigestUpdate", &crypto.update) && find("EVP_DigestFinal_ex", &crypto.final);
    return found ? 0 : fail("OpenSSL's libcrypto lacks the functions that hash files");
}

static int begin(hasher *h) {
    h->context = crypto.new_context();
    return !h->context || crypto.init(h->context, h->sha256 ? crypto.sha256() : crypto.sha1(), NULL) != 1;
}

static void update(hasher *h, const void *data, size_t n) {
    crypto.update(h->context, data, n);
}

static size_t finish(hasher *h, unsigned char *digest) {
    unsigned n = 0;
    crypto.final(h->context, digest, &n);
    return n;
}

void hash_free(hasher *h) {
    if (h && h->context) crypto.free_context(h->context);
    free(h);
}
#endif

hasher *hash_new(bool sha256) {
    hasher *h = calloc(1, sizeof *h);
    if (h) h->sha256 = sha256;
    if (h && !begin(h)) return h;
    hash_free(h);
    return fail_null("a hash can't be computed: no memory, or a policy of this system forbids it");
}

void hash_add(hasher *h, const void *data, size_t n) {
    update(h, data, n);
}

void hash_end(hasher *h, char hex[65]) {
    unsigned char digest[64] = {0};
    size_t n = finish(h, digest);
    *hex = '\0';
    for (size_t i = 0; i < n && i < 32; i++) snprintf(hex + 2 * i, 3, "%02x", digest[i]);
    hash_free(h);
}

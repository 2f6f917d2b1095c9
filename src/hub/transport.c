/* transport.c - libcurl's multi interface, opened with dlopen.
 * Redirects are not followed here: who asks decides about each one, so that a token never travels
 * with it. */
#include "hub/transport.h"

#define CURL_DISABLE_TYPECHECK
#include <ctype.h>
#include <curl/curl.h>
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

const char proxy_wants_a_password[] =
    "the proxy wants a name and a password (407), as in https_proxy=http://NAME:PASSWORD@HOST:PORT";

enum { MOST_HEADERS = 64 << 10, MOST_CONNECTIONS = 16, SLOWEST_BYTES_PER_SECOND = 100 };

/* The functions of libcurl that are used, with the types of its header. */
#define CURL_FUNCTIONS(F)                                                                                    \
    F(global_init)                                                                                           \
    F(easy_init)                                                                                             \
    F(easy_setopt)                                                                                           \
    F(easy_getinfo)                                                                                          \
    F(easy_cleanup)                                                                                          \
    F(easy_strerror)                                                                                         \
    F(slist_append)                                                                                          \
    F(slist_free_all)                                                                                        \
    F(multi_init)                                                                                            \
    F(multi_setopt)                                                                                          \
    F(multi_add_handle)                                                                                      \
    F(multi_remove_handle)                                                                                   \
    F(multi_perform)                                                                                         \
    F(multi_info_read)                                                                                       \
    F(multi_poll)                                                                                            \
    F(multi_wakeup)                                                                                          \
    F(multi_cleanup)                                                                                         \
    F(url)                                                                                                   \
    F(url_set)                                                                                               \
    F(url_get)                                                                                               \
    F(url_cleanup)                                                                                           \
    F(free)

#undef curl_easy_setopt
#undef curl_easy_getinfo
#undef curl_multi_setopt

struct transport {
    void *library;
#define FUNCTION(name) __typeof__(curl_##name) *name;
    CURL_FUNCTIONS(FUNCTION)
#undef FUNCTION
    CURLM *multi;
    char *origin, *token; /* "https://huggingface.co:443" */
    bool plain;           /* the endpoint is http: so may others be */
};

struct http_private {
    transport *t;
    CURL *easy;
    struct curl_slist *headers;
    http_request request;
    size_t header_bytes;
    char error[CURL_ERROR_SIZE];
    bool added;
};

/* ---- opening ---- */

static int find_functions(transport *t) {
    const struct {
        const char *name;
        void *place;
    } wanted[] = {
#define FUNCTION(name) {"curl_" #name, &t->name},
        CURL_FUNCTIONS(FUNCTION)
#undef FUNCTION
    };
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++) {
        void *symbol = dlsym(t->library, wanted[i].name);
        if (!symbol) return fail("libcurl is too old to download with: it lacks %s", wanted[i].name);
        memcpy(wanted[i].place, &symbol, sizeof symbol); /* POSIX: pointers to functions look the same */
    }
    return 0;
}

static int open_library(transport *t) {
#ifdef __APPLE__
    static const char *const names[] = {"/usr/lib/libcurl.4.dylib", "libcurl.4.dylib"};
#else
    static const char *const names[] = {"libcurl.so.4", "libcurl-gnutls.so.4"};
#endif
    const char *fixed = getenv("MLXBENCH_LIBCURL");
    for (size_t i = 0; i < sizeof names / sizeof *names && !t->library; i++)
        t->library = dlopen(fixed ? fixed : names[i], RTLD_NOW | RTLD_LOCAL);
    if (!t->library)
        return fail("downloading needs libcurl, which is not installed (%s); Debian and Ubuntu have it in "
                    "the package libcurl4",
                    dlerror());
    return find_functions(t);
}

/* The scheme, host and port of an address, to compare; NULL when it is no http address or has a
 * password. */
static char *origin_of(const transport *t, const char *url, bool *plain) {
    CURLU *u = t->url();
    char *scheme = NULL, *host = NULL, *port = NULL, *user = NULL;
    str origin = {0};
    bool good = u && !t->url_set(u, CURLUPART_URL, url, 0) && !t->url_get(u, CURLUPART_SCHEME, &scheme, 0) &&
                !t->url_get(u, CURLUPART_HOST, &host, 0) &&
                !t->url_get(u, CURLUPART_PORT, &port, CURLU_DEFAULT_PORT) &&
                t->url_get(u, CURLUPART_USER, &user, 0) == CURLUE_NO_USER;
    if (good) {
        *plain = !strcasecmp(scheme, "http");
        if (*plain || !strcasecmp(scheme, "https")) str_printf(&origin, "%s://%s:%s", scheme, host, port);
    }
    for (size_t i = 0; i < origin.length; i++) origin.data[i] = (char)tolower((unsigned char)origin.data[i]);
    t->free(scheme);
    t->free(host);
    t->free(port);
    t->free(user);
    if (u) t->url_cleanup(u);
    return origin.data;
}

static int set_up(transport *t, const char *endpoint, const char *token) {
    if (t->global_init(CURL_GLOBAL_DEFAULT)) return fail("libcurl can't be used here");
    t->origin = origin_of(t, endpoint, &t->plain);
    if (!t->origin) return fail_usage("HF_ENDPOINT is no web address: \"%s\"", endpoint);
    t->token = strdup(token);
    t->multi = t->multi_init();
    if (!t->token || !t->multi) return fail("no memory for downloads");
    t->multi_setopt(t->multi, CURLMOPT_MAX_HOST_CONNECTIONS, (long)MOST_CONNECTIONS);
    return 0;
}

transport *transport_open(const char *endpoint, const char *token) {
    transport *t = calloc(1, sizeof *t);
    if (!t) return fail_null("no memory for downloads");
    if (!open_library(t) && !set_up(t, endpoint, token)) return t;
    transport_close(t);
    return NULL;
}

void transport_close(transport *t) {
    if (!t) return;
    if (t->multi) t->multi_cleanup(t->multi);
    free(t->origin);
    free(t->token);
    free(t); /* the library stays: TLS libraries do not survive being closed */
}

bool transport_is_endpoint(const transport *t, const char *url) {
    bool plain;
    char *origin = origin_of(t, url, &plain);
    bool same = origin && !strcmp(origin, t->origin);
    free(origin);
    return same;
}

/* ---- headers ---- */

/* The value when the line's name is `name`: in `value`, without the white space around it. */
static bool is_header(const char *line, size_t n, const char *name, char *value, size_t size) {
    size_t m = strlen(name);
    if (n <= m || line[m] != ':' || strncasecmp(line, name, m)) return false;
    for (line += m + 1, n -= m + 1; n && isspace((unsigned char)*line); n--) line++;
    while (n && isspace((unsigned char)line[n - 1])) n--;
    if (n >= size) return false; /* longer than anything of use */
    memcpy(value, line, n);
    value[n] = '\0';
    return true;
}

static void read_etag(http_answer *a, const char *value, bool linked) {
    static const size_t most = sizeof a->etag;
    if (*a->etag && !linked) return; /* X-Linked-Etag came first */
    if (!strncmp(value, "W/", 2)) value += 2;
    if (*value == '"') value++;
    size_t n = strcspn(value, "\"");
    if (n >= most) n = most - 1;
    memcpy(a->etag, value, n);
    a->etag[n] = '\0';
}

/* bytes FIRST-LAST/TOTAL (RFC 9110, 14.4) */
static void read_range(http_answer *a, const char *value) {
    long long first, last, total;
    if (sscanf(value, "bytes %18lld-%18lld/%18lld", &first, &last, &total) != 3) return;
    a->range_first = first;
    a->range_last = last;
    a->range_total = total;
}

/* <ADDRESS>; rel="next" (RFC 8288) */
static void read_link(http_answer *a, const char *value) {
    const char *next = strstr(value, "rel=\"next\""), *end = next;
    while (end && end > value && *end != '>') end--;
    const char *start = end;
    while (start && start > value && *start != '<') start--;
    if (!start || *start != '<' || (size_t)(end - start) > sizeof a->next) return;
    memcpy(a->next, start + 1, (size_t)(end - start - 1));
    a->next[end - start - 1] = '\0';
}

/* Retry-After in seconds, or RateLimit: "api";r=0;t=55 (draft-ietf-httpapi-ratelimit-headers). */
static void read_wait(http_answer *a, const char *value, bool ratelimit) {
    const char *number = ratelimit ? strstr(value, "t=") : value;
    if (ratelimit && !strstr(value, "r=0")) return;
    if (number && ratelimit) number += 2;
    if (number && isdigit((unsigned char)*number)) a->wait = strtol(number, NULL, 10);
}

static void clear_answer(http_answer *a) {
    *a = (http_answer){.range_first = -1, .range_last = -1, .range_total = -1, .wait = -1};
}

static size_t take_header(char *line, size_t one, size_t n, void *context) {
    http_transfer *x = context;
    http_answer *a = &x->answer;
    char value[4096];
    n *= one;
    x->private->header_bytes += n;
    if (x->private->header_bytes > MOST_HEADERS) return 0;
    if (n > 5 && !strncmp(line, "HTTP/", 5))
        clear_answer(a); /* after 100 or 103 comes another one */
    else if (is_header(line, n, "X-Linked-Etag", value, sizeof value))
        read_etag(a, value, true);
    else if (is_header(line, n, "ETag", value, sizeof value))
        read_etag(a, value, false);
    else if (is_header(line, n, "X-Error-Code", value, sizeof value))
        snprintf(a->error_code, sizeof a->error_code, "%.63s", value);
    else if (is_header(line, n, "X-Error-Message", value, sizeof value))
        snprintf(a->error_message, sizeof a->error_message, "%.199s", value);
    else if (is_header(line, n, "Content-Range", value, sizeof value))
        read_range(a, value);
    else if (is_header(line, n, "Link", value, sizeof value))
        read_link(a, value);
    else if (is_header(line, n, "Retry-After", value, sizeof value))
        read_wait(a, value, false);
    else if (is_header(line, n, "RateLimit", value, sizeof value))
        read_wait(a, value, true);
    else if (is_header(line, n, "Content-Encoding", value, sizeof value))
        a->encoded = strcasecmp(value, "identity") != 0;
    return n;
}

/* ---- transfers ---- */

static size_t take_body(char *data, size_t one, size_t n, void *context) {
    http_transfer *x = context;
    struct http_private *p = x->private;
    long status = 0;
    p->t->easy_getinfo(p->easy, CURLINFO_RESPONSE_CODE, &status);
    x->answer.status = (int)status;
    return p->request.body(x->context, &x->answer, data, n * one) ? n * one : CURL_WRITEFUNC_ERROR;
}

static int add_header(struct http_private *p, const char *text) {
    struct curl_slist *longer = p->t->slist_append(p->headers, text);
    if (!longer) return fail("no memory for a request");
    p->headers = longer;
    return 0;
}

static int add_headers(transport *t, struct http_private *p, bool own) {
    str token = {0};
    int status = add_header(p, "Accept-Encoding: identity"); /* sizes and ranges are those of the file */
    if (!status && own && *t->token) {
        str_printf(&token, "Authorization: Bearer %s", t->token);
        status = token.failed ? -1 : add_header(p, token.data);
    }
    str_free(&token);
    return status;
}

/* Certificates other than the system's, as Python's and curl's programs have them. */
static void set_certificates(transport *t, CURL *easy) {
    static const char *const names[] = {"SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const char *file = getenv(names[i]);
        if (!file || !*file) continue;
        t->easy_setopt(easy, CURLOPT_CAINFO, file);
        return;
    }
}

static void set_options(transport *t, http_transfer *x) {
    const struct http_private *p = x->private;
    char range[64];
    CURL *easy = p->easy;
    t->easy_setopt(easy, CURLOPT_URL, p->request.url);
    t->easy_setopt(easy, CURLOPT_PRIVATE, x);
    t->easy_setopt(easy, CURLOPT_ERRORBUFFER, p->error);
    t->easy_setopt(easy, CURLOPT_HTTPHEADER, p->headers);
    t->easy_setopt(easy, CURLOPT_HEADERFUNCTION, take_header);
    t->easy_setopt(easy, CURLOPT_HEADERDATA, x);
    t->easy_setopt(easy, CURLOPT_WRITEFUNCTION, take_body);
    t->easy_setopt(easy, CURLOPT_WRITEDATA, x);
    t->easy_setopt(easy, CURLOPT_USERAGENT, "mlxbench/" MLXBENCH_VERSION);
    t->easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
    /* over HTTP/2 all ranges would share one connection, and its speed */
    t->easy_setopt(easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    t->easy_setopt(easy, CURLOPT_BUFFERSIZE, 512L << 10);
    t->easy_setopt(easy, CURLOPT_CONNECTTIMEOUT, p->request.idle);
    t->easy_setopt(easy, CURLOPT_LOW_SPEED_LIMIT, (long)SLOWEST_BYTES_PER_SECOND);
    t->easy_setopt(easy, CURLOPT_LOW_SPEED_TIME, p->request.idle);
    if (p->request.seconds) t->easy_setopt(easy, CURLOPT_TIMEOUT, p->request.seconds);
    if (p->request.first >= 0) {
        snprintf(range, sizeof range, "%lld-%lld", (long long)p->request.first, (long long)p->request.last);
        t->easy_setopt(easy, CURLOPT_RANGE, range);
    }
    set_certificates(t, easy);
}

http_transfer *transport_start(transport *t, const http_request *request) {
    bool plain = false;
    char *origin = origin_of(t, request->url, &plain);
    bool own = origin && !strcmp(origin, t->origin), known = origin != NULL;
    free(origin);
    if (!known) return fail_null("the Hub leads to an address that can't be used: %.200s", request->url);
    if (plain && !t->plain)
        return fail_null("the Hub leads to an address without TLS, which is refused: %.200s", request->url);
    http_transfer *x = calloc(1, sizeof *x);
    struct http_private *p = calloc(1, sizeof *p);
    if (!x || !p) {
        free(x);
        free(p);
        return fail_null("no memory for a request");
    }
    x->private = p;
    x->context = request->context;
    clear_answer(&x->answer);
    p->t = t;
    p->request = *request;
    p->easy = t->easy_init();
    if (!p->easy || add_headers(t, p, own)) {
        transfer_free(t, x);
        return fail_null("no memory for a request");
    }
    set_options(t, x);
    p->added = !t->multi_add_handle(t->multi, p->easy);
    if (p->added) return x;
    transfer_free(t, x);
    return fail_null("libcurl refuses a request");
}

void transfer_free(transport *t, http_transfer *x) {
    if (!x) return;
    struct http_private *p = x->private;
    if (p->added) t->multi_remove_handle(t->multi, p->easy);
    if (p->easy) t->easy_cleanup(p->easy);
    t->slist_free_all(p->headers);
    free(p);
    free(x);
}

/* ---- the end of a transfer ---- */

/* A proxy that refuses to connect us. */
static void explain_proxy(http_transfer *x, long status) {
    x->end = status >= 500 ? HTTP_TRANSIENT : HTTP_FATAL;
    if (status == 407)
        snprintf(x->why, sizeof x->why, "%s", proxy_wants_a_password);
    else
        snprintf(x->why, sizeof x->why, "the proxy (see https_proxy and http_proxy) answers %ld", status);
}

/* What failed, in words a person can act on. */
static void explain(http_transfer *x, CURLcode code) {
    const struct http_private *p = x->private;
    const char *detail = *p->error ? p->error : p->t->easy_strerror(code);
    long connect = 0;
    p->t->easy_getinfo(p->easy, CURLINFO_HTTP_CONNECTCODE, &connect);
    if (code && connect >= 300) {
        explain_proxy(x, connect);
        return;
    }
    x->end = HTTP_TRANSIENT;
    switch (code) {
    case CURLE_OK:
        x->end = HTTP_ANSWERED;
        return;
    case CURLE_WRITE_ERROR:
        x->end = HTTP_STOPPED;
        if (p->header_bytes <= MOST_HEADERS) return;
        x->end = HTTP_FATAL;
        snprintf(x->why, sizeof x->why, "the answer's headers are longer than %d KB", MOST_HEADERS >> 10);
        return;
    case CURLE_COULDNT_RESOLVE_HOST:
        snprintf(x->why, sizeof x->why, "no network? %s", detail);
        break;
    case CURLE_OPERATION_TIMEDOUT:
        snprintf(x->why, sizeof x->why, "no data for too long: %s", detail);
        break;
    case CURLE_COULDNT_RESOLVE_PROXY:
    case CURLE_PROXY:
        x->end = HTTP_FATAL;
        snprintf(x->why, sizeof x->why, "the proxy (see https_proxy and http_proxy) can't be used: %s",
                 detail);
        break;
    case CURLE_SSL_CONNECT_ERROR:
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CACERT_BADFILE:
    case CURLE_SSL_CERTPROBLEM:
    case CURLE_SSL_ISSUER_ERROR:
        x->end = code == CURLE_SSL_CONNECT_ERROR ? HTTP_TRANSIENT : HTTP_FATAL;
        snprintf(x->why, sizeof x->why, "TLS: %s (SSL_CERT_FILE names other certificates)", detail);
        break;
    case CURLE_UNSUPPORTED_PROTOCOL:
    case CURLE_URL_MALFORMAT:
        x->end = HTTP_FATAL;
        snprintf(x->why, sizeof x->why, "%s", detail);
        break;
    default:
        snprintf(x->why, sizeof x->why, "%s", detail);
    }
    make_printable(x->why);
}

static http_transfer *take_finished(transport *t) {
    int left;
    const CURLMsg *m;
    while ((m = t->multi_info_read(t->multi, &left))) {
        if (m->msg != CURLMSG_DONE) continue;
        CURLcode code = m->data.result;
        http_transfer *x = NULL;
        char *location = NULL;
        long status = 0;
        t->easy_getinfo(m->easy_handle, CURLINFO_PRIVATE, &x);
        t->easy_getinfo(x->private->easy, CURLINFO_RESPONSE_CODE, &status);
        t->easy_getinfo(x->private->easy, CURLINFO_REDIRECT_URL, &location);
        x->answer.status = (int)status;
        if (location && strlen(location) < sizeof x->answer.location) strcpy(x->answer.location, location);
        explain(x, code);
        return x;
    }
    return NULL;
}

http_transfer *transport_step(transport *t, int wait_ms) {
    int running;
    t->multi_perform(t->multi, &running);
    http_transfer *x = take_finished(t);
    if (x) return x;
    t->multi_poll(t->multi, NULL, 0, wait_ms, NULL);
    t->multi_perform(t->multi, &running);
    return take_finished(t);
}

void transport_wake(transport *t) {
    t->multi_wakeup(t->multi);
}

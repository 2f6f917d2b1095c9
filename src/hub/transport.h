/* transport.h - HTTP requests to the Hub and to where it redirects, several at a time in one
 * thread. libcurl does the work (TLS, proxies, connections that are kept); it is opened when the
 * first request is made, so the program starts without it. What is dangerous in an answer is
 * bounded here: headers, time without data, where redirects lead, and who gets the token. */
#ifndef HUB_TRANSPORT_H
#define HUB_TRANSPORT_H

#include "base/base.h"

typedef struct transport transport;

/* The headers of an answer that somebody reads. Foreign text. */
typedef struct http_answer {
    int status;                                   /* 200, 404, ...; 0: there was no answer */
    char etag[80];                                /* X-Linked-Etag, else ETag; without W/ and quotes */
    char error_code[64], error_message[200];      /* X-Error-Code, X-Error-Message */
    char next[2048];                              /* Link: <...>; rel="next" */
    char location[4096];                          /* of a redirect, absolute */
    int64_t range_first, range_last, range_total; /* Content-Range; -1 */
    long wait;                                    /* seconds: Retry-After or RateLimit's reset; -1 */
    bool encoded;                                 /* compressed, though nobody asked for it */
} http_answer;

typedef struct http_request {
    const char *url;
    int64_t first, last; /* bytes to ask for, the last included; first < 0: all */
    long idle;           /* seconds without data after which it has failed */
    long seconds;        /* the longest the whole may take; 0: as long as data comes */
    /* Gets the body, piece by piece; false ends the transfer. */
    bool (*body)(void *context, const http_answer *answer, const char *data, size_t n);
    void *context;
} http_request;

typedef enum http_end {
    HTTP_ANSWERED,  /* there is a whole answer, whatever its status */
    HTTP_STOPPED,   /* body() said so */
    HTTP_TRANSIENT, /* the network failed in a way that may pass */
    HTTP_FATAL,     /* it will fail again: TLS, proxy, an address that must not be used */
} http_end;

typedef struct http_transfer {
    http_end end;
    http_answer answer;
    char why[400]; /* of HTTP_TRANSIENT and HTTP_FATAL: printable, without the address */
    void *context; /* the request's */
    struct http_private *private;
} http_transfer;

/* What to do when the status is 407, or a tunnel was refused with it. */
extern const char proxy_wants_a_password[];

/* Opens libcurl. token: sent to the endpoint's host alone; "" for none. NULL with a message that
 * says which package has the library. */
transport *transport_open(const char *endpoint, const char *token);
void transport_close(transport *t); /* harmless on NULL; transfers end with it */

/* Starts a request. NULL with a message. transfer_free ends it, at whatever stage it is. */
http_transfer *transport_start(transport *t, const http_request *request);
void transfer_free(transport *t, http_transfer *transfer);

/* Lets transfers go on for up to wait_ms, and returns one that has ended, or NULL. */
http_transfer *transport_step(transport *t, int wait_ms);

/* Ends a transport_step that waits; for other threads. */
void transport_wake(transport *t);

/* Is the address on the endpoint's own host (scheme, host and port)? */
bool transport_is_endpoint(const transport *t, const char *url);

#endif

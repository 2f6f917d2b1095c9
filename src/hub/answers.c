/* answers.c - what the Hub's refusals mean, in words a person can act on.
 * Source: huggingface_hub's utils/_http.py (hf_raise_for_status), which knows the Hub's
 * X-Error-Code. */
#include "hub/cache.h"
#include "hub/download.h"

#include <strings.h>

enum { LONGEST_WAIT = 300, MOST_WAITS = 5 };

bool status_may_pass(int status) {
    return status == 408 || (status >= 500 && status <= 599);
}

long wait_for_limit(const http_answer *answer, int *waits) {
    long seconds = answer->wait >= 0 ? answer->wait : 5L << (*waits < 4 ? *waits : 4);
    if (seconds > LONGEST_WAIT || ++*waits > MOST_WAITS)
        return fail(
            "the Hub's rate limit: try again in %ld seconds; who is logged in (HF_TOKEN) may ask more often",
            seconds);
    return seconds;
}

static int fail_gated(const char *endpoint, const char *repo) {
    return fail(
        "%s is gated: accept its conditions at %s/%s, then log in with: hf auth login - or set HF_TOKEN",
        repo, endpoint, repo);
}

static int fail_unknown(const char *endpoint, const char *repo) {
    str near = {0};
    hub_put_nearest(&near, repo);
    fail("there is no folder or file %s here, and %s has no such model, or shows it only to who is logged in "
         "(hf auth "
         "login, or HF_TOKEN)%s",
         repo, endpoint, near.data ? near.data : "");
    str_free(&near);
    return -1;
}

int fail_answer(const http_answer *a, const char *endpoint, const char *repo, const char *what) {
    if (a->status == 407) return fail("%s", proxy_wants_a_password);
    if (!strcmp(a->error_code, "GatedRepo")) return fail_gated(endpoint, repo);
    if (!strcmp(a->error_code, "RevisionNotFound")) return fail("%s has no revision \"%s\"", repo, what);
    if (!strcmp(a->error_code, "EntryNotFound")) return fail("%s has no file \"%s\"", repo, what);
    if (a->status == 401 && strcasestr(a->error_message, "Invalid credentials"))
        return fail(
            "the Hub refuses the access token (HF_TOKEN, or what hf auth login has kept): it is wrong or has "
            "expired");
    if (!strcmp(a->error_code, "RepoNotFound") || a->status == 401 || a->status == 404)
        return fail_unknown(endpoint, repo);
    if (a->status == 403)
        return fail("the Hub does not let you read %s%s%s; log in with: hf auth login - or set HF_TOKEN",
                    repo, *a->error_message ? ": " : "", a->error_message);
    return fail("%s answers %d%s%s about %s (%s)%s", endpoint, a->status, *a->error_message ? " " : "",
                a->error_message, repo, what, status_may_pass(a->status) ? "; try again later" : "");
}

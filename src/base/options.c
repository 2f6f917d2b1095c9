/* options.c - parses a command line by a table of options, and prints that table as the help page.
 * Every message names the option as the user typed it, and unknown ones get the nearest known
 * name. */
#include "base/base.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { HELP_WIDTH = 100, HELP_INDENT = 2, LONGEST_LEFT = 36, LONGEST_NAME = 40 };

int parse_number(const char *text, const char *what, int64_t min, int64_t max, int64_t *out) {
    const char *digits = text + (*text == '-' || *text == '+');
    if (!*digits || digits[strspn(digits, "0123456789")])
        return fail_usage("%s: \"%s\" is not a whole number", what, text);
    errno = 0;
    long long v = strtoll(text, NULL, 10);
    bool outside = errno == ERANGE || v < min || v > max;
    if (outside && max == INT64_MAX)
        return fail_usage("%s: %s is too %s; the least is %lld", what, text, v < min ? "small" : "large",
                          (long long)min);
    if (outside)
        return fail_usage("%s: %s is outside %lld to %lld", what, text, (long long)min, (long long)max);
    *out = v;
    return 0;
}

/* ---- names ---- */

static int fail_unknown(const option *options, size_t n, const char *command, const char *typed) {
    const char *word = typed + strspn(typed, "-"), *nearest = "help", *dashes = "--";
    size_t best = edit_distance(word, nearest);
    for (size_t i = 0; i < n; i++) {
        const char *names[] = {options[i].name, options[i].short_name};
        for (int k = 0; k < 2; k++) { /* words have neither */
            size_t distance = names[k] ? edit_distance(word, names[k]) : best;
            if (distance >= best) continue;
            best = distance;
            nearest = names[k];
            dashes = k ? "-" : "--";
        }
    }
    if (best <= 1 + strlen(word) / 3)
        return fail_usage("unknown option %s; did you mean %s%s?", typed, dashes, nearest);
    return fail_usage("unknown option %s; see mlxbench %s --help", typed, command);
}

/* The option that argument names ("--name", "--name=value" or "-short"), or NULL. *value is what
 * follows "=", else NULL. */
static const option *find_option(const option *options, size_t n, const char *argument, const char **value) {
    bool is_long = argument[0] == '-' && argument[1] == '-';
    const char *word = argument + (is_long ? 2 : 1), *equals = is_long ? strchr(word, '=') : NULL;
    size_t length = equals ? (size_t)(equals - word) : strlen(word);
    *value = equals ? equals + 1 : NULL;
    if (argument[0] != '-' || !length) return NULL;
    for (size_t i = 0; i < n; i++) {
        const char *name = is_long ? options[i].name : options[i].short_name;
        if (name && strlen(name) == length && !strncmp(name, word, length)) return &options[i];
    }
    return NULL;
}

/* ---- values ---- */

static int set_value(const option *o, const char *argument, const char *value) {
    if (o->kind == OPTION_FLAG) {
        *(bool *)o->value = true;
    } else if (o->kind == OPTION_TEXT) {
        *(const char **)o->value = value;
    } else if (o->kind == OPTION_LIST) {
        str *list = o->value;
        str_printf(list, "%s%s", list->data ? "," : "", value);
        return list->failed ? -1 : 0;
    } else if (o->kind == OPTION_TEXTS) {
        option_texts *texts = o->value;
        if (texts->n >= OPTION_MAX_TEXTS)
            return fail_usage("%s: given more than %d times", argument, OPTION_MAX_TEXTS);
        texts->items[texts->n++] = value;
    } else {
        char what[LONGEST_NAME + 3];
        snprintf(what, sizeof what, "--%s", o->name);
        return parse_number(value, what, o->min, o->max, o->value);
    }
    return 0;
}

/* Where words that belong to no option go, or NULL. */
static const option *find_words(const option *options, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (!options[i].name) return &options[i];
    return NULL;
}

static bool is_help(const char *argument) {
    return !strcmp(argument, "--help") || !strcmp(argument, "-h");
}

int options_parse(const option *options, size_t n, const option_usage *usage, int argc, char **argv) {
    for (int i = 1; i < argc; i++) {
        const char *argument = argv[i], *value, *unused;
        if (is_help(argument)) {
            options_help(stdout, options, n, usage, i + 1 < argc && !strcmp(argv[i + 1], "all"));
            return 1;
        }
        const option *o = find_option(options, n, argument, &value);
        if (!o && argument[0] == '-' && argument[1]) return fail_unknown(options, n, argv[0], argument);
        if (!o && find_words(options, n)) {
            if (set_value(find_words(options, n), argument, argument)) return -1;
            continue;
        }
        if (!o) return fail_usage("unexpected argument \"%s\"; see mlxbench %s --help", argument, argv[0]);
        if (o->kind == OPTION_FLAG) {
            if (value) return fail_usage("--%s takes no value", o->name);
        } else if (!value) {
            /* What looks like the next option is no value: "--model --verbose" forgot the model. */
            const char *next = i + 1 < argc ? argv[i + 1] : NULL;
            bool is_option = next && (is_help(next) || find_option(options, n, next, &unused) ||
                                      (!strncmp(next, "--", 2) && isalpha((unsigned char)next[2])));
            if (!next || is_option)
                return fail_usage("%s needs a value (%s)", argument, o->metavar ? o->metavar : "VALUE");
            value = next;
            i++;
        }
        if (set_value(o, argument, value)) return -1;
    }
    return 0;
}

/* ---- help ---- */

/* Prints text from `column` on, broken at spaces so that no line passes HELP_WIDTH; further lines
 * begin at indent. A newline in the text starts a new line there. */
static void print_wrapped(FILE *out, const char *text, size_t column, size_t indent) {
    bool line_empty = true;
    while (*text) {
        size_t word = strcspn(text, " \n");
        if (!line_empty && column + 1 + word > HELP_WIDTH) {
            fprintf(out, "\n%*s", (int)indent, "");
            column = indent;
            line_empty = true;
        }
        if (word) {
            fprintf(out, "%s%.*s", line_empty ? "" : " ", (int)word, text);
            column += word + !line_empty;
            line_empty = false;
        }
        text += word;
        if (*text == '\n') {
            fprintf(out, "\n%*s", text[1] ? (int)indent : 0, "");
            column = indent;
            line_empty = true;
        }
        if (*text) text++;
    }
    fprintf(out, "\n");
}

static size_t print_left(char *text, size_t size, const option *o) {
    int used =
        snprintf(text, size, "%*s%s%s%s%s%s%s%s", HELP_INDENT, "", o->short_name ? "-" : "",
                 o->short_name ? o->short_name : "", o->short_name ? ", " : "", o->name ? "--" : "",
                 o->name ? o->name : "", o->name && o->metavar ? " " : "", o->metavar ? o->metavar : "");
    return used < 0 ? 0 : (size_t)used < size ? (size_t)used : size - 1;
}

static void print_help(FILE *out, const option *o, size_t width, size_t right) {
    str text = {0};
    str_puts(&text, o->help);
    if (o->standard) str_printf(&text, " (%s)", o->standard);
    bool fits = width + 2 <= right; /* else the help begins on the next line */
    fprintf(out, "%s%*s", fits ? "" : "\n", (int)(fits ? right - width : right), "");
    print_wrapped(out, text.failed ? o->help : text.data, right, right);
    str_free(&text);
}

void options_help(FILE *out, const option *options, size_t n, const option_usage *usage, bool all) {
    static const option help = {
        .name = "help", .short_name = "h", .help = "show this page", .kind = OPTION_FLAG};
    char left[HELP_WIDTH];
    size_t right = print_left(left, sizeof left, &help), n_hidden = 0;
    for (size_t i = 0; i < n; i++) {
        size_t width = print_left(left, sizeof left, &options[i]);
        n_hidden += options[i].rare && !all;
        if (options[i].rare && !all) continue;
        if (width > right && width <= LONGEST_LEFT) right = width;
    }
    right += 2;
    fprintf(out, "usage: ");
    print_wrapped(out, usage->synopsis, strlen("usage: "), strlen("usage: ") + 4);
    fprintf(out, "\n");
    print_wrapped(out, usage->about, 0, 0);
    fprintf(out, "\noptions:\n");
    for (size_t i = 0; i <= n; i++) {
        const option *o = i < n ? &options[i] : &help;
        if (o->rare && !all) continue;
        size_t width = print_left(left, sizeof left, o);
        fputs(left, out);
        print_help(out, o, width, right);
    }
    if (n_hidden && usage->command)
        fprintf(out, "%zu more: mlxbench %s --help all\n", n_hidden, usage->command);
    fprintf(out, "\nexample:\n%*s", HELP_INDENT, "");
    print_wrapped(out, usage->example, HELP_INDENT, HELP_INDENT);
}

/* Text that is put together in a buffer of fixed size. What does not fit sets `overflow` and is left out. */
#ifndef AMBIT_CNI_TEXT_H
#define AMBIT_CNI_TEXT_H

#include <stdbool.h>
#include <stddef.h>

struct text {
    char *at;
    size_t length, capacity;
    bool overflow;
};

void text_add(struct text *text, const char *more);
void text_add_bytes(struct text *text, const char *more, size_t length);

/* As a JSON string, with its quotes. `more` must be UTF-8. */
void text_add_quoted(struct text *text, const char *more);

/* Whether it is well-formed UTF-8 (RFC 3629: no surrogates, nothing overlong). */
bool text_is_utf8(const char *at, size_t length);

#endif

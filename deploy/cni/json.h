/* A strict reader of JSON (RFC 8259) that works on the text itself: no copies, no allocation, bounded depth.
 * Check a document with json_is_valid first; the others walk what is known to be valid. */
#ifndef AMBIT_CNI_JSON_H
#define AMBIT_CNI_JSON_H

#include <stdbool.h>
#include <stddef.h>

struct json { /* the raw text of one value, no space around it */
    const char *at;
    size_t length;
};

/* One value with nothing but space around it, in UTF-8, at most 64 deep; `value` gets it without the space. */
bool json_is_valid(const char *at, size_t length, struct json *value);

/* The member of that name; the last one when there are several, as Go's decoder takes it. False: no such member, or not
 * an object. */
bool json_member(struct json object, const char *name, struct json *value);

/* Walks an array: start with *position = 0. False: no more elements, or not an array. */
bool json_element(struct json array, size_t *position, struct json *value);

/* A string, decoded and ended by NUL. False: no string, does not fit, holds a NUL or half a surrogate pair. */
bool json_string(struct json value, char *out, size_t capacity);

/* A number of seconds from 0 to `most`, in milliseconds. */
bool json_milliseconds(struct json value, long most, long *out);

bool json_is(struct json value, const char *literal);

#endif

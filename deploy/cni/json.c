#include "json.h"

#include <stdlib.h>
#include <string.h>

#include "text.h"

enum { DEEPEST = 64 }; /* a CNI result is five deep; the bound keeps the stack small */

struct scan {
    const char *at, *end;
};

static bool skip_value(struct scan *scan, int depth);

static void skip_space(struct scan *scan)
{
    while (scan->at < scan->end && strchr(" \t\r\n", *scan->at) && *scan->at)
        scan->at++;
}

static bool take(struct scan *scan, char byte)
{
    if (scan->at == scan->end || *scan->at != byte)
        return false;
    scan->at++;
    return true;
}

static bool take_word(struct scan *scan, const char *word)
{
    size_t length = strlen(word);

    if ((size_t)(scan->end - scan->at) < length || memcmp(scan->at, word, length) != 0)
        return false;
    scan->at += length;
    return true;
}

static int hexadecimal(char digit)
{
    if (digit >= '0' && digit <= '9') return digit - '0';
    if (digit >= 'a' && digit <= 'f') return digit - 'a' + 10;
    if (digit >= 'A' && digit <= 'F') return digit - 'A' + 10;
    return -1;
}

/* The four digits of a \u escape, -1 when they are not there. */
static long take_unit(struct scan *scan)
{
    long unit = 0;

    for (int i = 0; i < 4; i++, scan->at++) {
        int digit = scan->at < scan->end ? hexadecimal(*scan->at) : -1;
        if (digit < 0)
            return -1;
        unit = unit * 16 + digit;
    }
    return unit;
}

static bool skip_string(struct scan *scan)
{
    if (!take(scan, '"'))
        return false;
    while (scan->at < scan->end) {
        char byte = *scan->at++;
        if (byte == '"')
            return true;
        if ((unsigned char)byte < 0x20)
            return false;
        if (byte != '\\')
            continue;
        if (scan->at == scan->end || !*scan->at || !strchr("\"\\/bfnrtu", *scan->at))
            return false;
        if (*scan->at++ == 'u' && take_unit(scan) < 0)
            return false;
    }
    return false;
}

static bool skip_digits(struct scan *scan)
{
    const char *start = scan->at;

    while (scan->at < scan->end && *scan->at >= '0' && *scan->at <= '9')
        scan->at++;
    return scan->at > start;
}

static bool skip_number(struct scan *scan)
{
    take(scan, '-');
    if (!take(scan, '0') && !skip_digits(scan))
        return false;
    if (take(scan, '.') && !skip_digits(scan))
        return false;
    if (take(scan, 'e') || take(scan, 'E')) {
        if (!take(scan, '+'))
            take(scan, '-');
        return skip_digits(scan);
    }
    return true;
}

/* `"name" :`, up to the value. */
static bool skip_name(struct scan *scan, struct json *name)
{
    skip_space(scan);
    name->at = scan->at;
    if (!skip_string(scan))
        return false;
    name->length = (size_t)(scan->at - name->at);
    skip_space(scan);
    if (!take(scan, ':'))
        return false;
    skip_space(scan);
    return true;
}

static bool skip_members(struct scan *scan, int depth)
{
    struct json name;

    skip_space(scan);
    if (take(scan, '}'))
        return true;
    do {
        if (!skip_name(scan, &name) || !skip_value(scan, depth))
            return false;
        skip_space(scan);
    } while (take(scan, ','));
    return take(scan, '}');
}

static bool skip_elements(struct scan *scan, int depth)
{
    skip_space(scan);
    if (take(scan, ']'))
        return true;
    do {
        skip_space(scan);
        if (!skip_value(scan, depth))
            return false;
        skip_space(scan);
    } while (take(scan, ','));
    return take(scan, ']');
}

static bool skip_value(struct scan *scan, int depth)
{
    if (depth == DEEPEST || scan->at == scan->end)
        return false;
    switch (*scan->at) {
    case '{': scan->at++; return skip_members(scan, depth + 1);
    case '[': scan->at++; return skip_elements(scan, depth + 1);
    case '"': return skip_string(scan);
    case 't': return take_word(scan, "true");
    case 'f': return take_word(scan, "false");
    case 'n': return take_word(scan, "null");
    default: return skip_number(scan);
    }
}

static bool take_value(struct scan *scan, struct json *value)
{
    value->at = scan->at;
    if (!skip_value(scan, 0))
        return false;
    value->length = (size_t)(scan->at - value->at);
    return true;
}

bool json_is_valid(const char *at, size_t length, struct json *value)
{
    struct scan scan = {at, at + length};

    skip_space(&scan);
    if (!text_is_utf8(at, length) || !take_value(&scan, value))
        return false;
    skip_space(&scan);
    return scan.at == scan.end;
}

bool json_member(struct json object, const char *wanted, struct json *value)
{
    struct scan scan = {object.at, object.at + object.length};
    struct json name, candidate;
    char decoded[64]; /* longer than every name that is asked for */
    bool found = false;

    if (!take(&scan, '{'))
        return false;
    while (skip_name(&scan, &name) && take_value(&scan, &candidate)) {
        if (json_string(name, decoded, sizeof decoded) && strcmp(decoded, wanted) == 0) {
            *value = candidate;
            found = true;
        }
        skip_space(&scan);
        if (!take(&scan, ','))
            break;
    }
    return found;
}

bool json_element(struct json array, size_t *position, struct json *value)
{
    struct scan scan = {array.at + *position, array.at + array.length};

    if (*position == array.length || !take(&scan, *position ? ',' : '['))
        return false;
    skip_space(&scan);
    if (!take_value(&scan, value))
        return false;
    skip_space(&scan);
    *position = (size_t)(scan.at - array.at);
    return true;
}

static void add_character(struct text *text, long code)
{
    char bytes[4];
    size_t length = code < 0x80 ? 1 : code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
    static const unsigned char lead[] = {0, 0, 0xc0, 0xe0, 0xf0};

    for (size_t i = length - 1; i > 0; i--, code >>= 6)
        bytes[i] = (char)(0x80 | (code & 0x3f));
    bytes[0] = (char)(lead[length] | code);
    text_add_bytes(text, bytes, length);
}

/* After a backslash. */
static bool decode_escape(struct scan *scan, struct text *text)
{
    static const char names[] = "\"\\/bfnrt", meant[] = "\"\\/\b\f\n\r\t";
    char name = *scan->at++;
    long code, second;

    if (name != 'u') {
        text_add_bytes(text, &meant[strchr(names, name) - names], 1);
        return true;
    }
    code = take_unit(scan);
    if (code >= 0xd800 && code <= 0xdbff) {
        if (!take_word(scan, "\\u"))
            return false;
        second = take_unit(scan);
        if (second < 0xdc00 || second > 0xdfff)
            return false;
        code = 0x10000 + ((code - 0xd800) << 10) + (second - 0xdc00);
    } else if (code == 0 || (code >= 0xdc00 && code <= 0xdfff)) {
        return false;
    }
    add_character(text, code);
    return true;
}

bool json_string(struct json value, char *out, size_t capacity)
{
    struct text text = {.at = out, .capacity = capacity - 1};
    struct scan scan = {value.at + 1, value.at + value.length - 1};

    if (value.at[0] != '"')
        return false;
    while (scan.at < scan.end && !text.overflow) {
        if (!take(&scan, '\\'))
            text_add_bytes(&text, scan.at++, 1);
        else if (!decode_escape(&scan, &text))
            return false;
    }
    out[text.length] = '\0';
    return !text.overflow;
}

bool json_milliseconds(struct json value, long most, long *out)
{
    char digits[32];
    double seconds;

    if (value.length >= sizeof digits || !strchr("0123456789", value.at[0]))
        return false;
    memcpy(digits, value.at, value.length);
    digits[value.length] = '\0';
    seconds = strtod(digits, NULL);
    if (!(seconds >= 0 && seconds <= (double)most))
        return false;
    *out = (long)(seconds * 1000);
    return true;
}

bool json_is(struct json value, const char *literal)
{
    return value.length == strlen(literal) && memcmp(value.at, literal, value.length) == 0;
}

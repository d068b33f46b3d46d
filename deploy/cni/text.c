#include "text.h"

#include <string.h>

void text_add_bytes(struct text *text, const char *more, size_t length)
{
    if (text->overflow || length > text->capacity - text->length) {
        text->overflow = true;
        return;
    }
    memcpy(text->at + text->length, more, length);
    text->length += length;
}

void text_add(struct text *text, const char *more)
{
    text_add_bytes(text, more, strlen(more));
}

static void add_escaped(struct text *text, char byte)
{
    static const char digits[] = "0123456789abcdef";
    char escaped[] = {'\\', 'u', '0', '0', digits[(byte >> 4) & 1], digits[byte & 15]};

    text_add_bytes(text, escaped, sizeof escaped);
}

void text_add_quoted(struct text *text, const char *more)
{
    text_add(text, "\"");
    for (; *more; more++) {
        if (*more == '"' || *more == '\\')
            text_add(text, "\\");
        if ((unsigned char)*more < 0x20)
            add_escaped(text, *more);
        else
            text_add_bytes(text, more, 1);
    }
    text_add(text, "\"");
}

/* Bytes of the character that starts here, 0 when it is malformed (table 3-7 of the Unicode standard). */
static size_t character(const unsigned char *at, size_t left)
{
    unsigned char low = 0x80, high = 0xbf;
    size_t length;

    if (at[0] < 0x80)
        return 1;
    if (at[0] < 0xc2 || at[0] > 0xf4)
        return 0;
    length = at[0] < 0xe0 ? 2 : at[0] < 0xf0 ? 3 : 4;
    if (at[0] == 0xe0) low = 0xa0;
    if (at[0] == 0xed) high = 0x9f;
    if (at[0] == 0xf0) low = 0x90;
    if (at[0] == 0xf4) high = 0x8f;
    if (length > left || at[1] < low || at[1] > high)
        return 0;
    for (size_t i = 2; i < length; i++)
        if ((at[i] & 0xc0) != 0x80)
            return 0;
    return length;
}

bool text_is_utf8(const char *at, size_t length)
{
    for (size_t taken, done = 0; done < length; done += taken) {
        taken = character((const unsigned char *)at + done, length - done);
        if (!taken)
            return false;
    }
    return true;
}

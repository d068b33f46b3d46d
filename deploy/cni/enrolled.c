#include "enrolled.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { FILE_LIMIT = 1 << 20 }; /* 16000 of the longest names */

/* Its size, -1 with errno. Only a plain file: a FIFO would hold us for ever. */
static ssize_t read_file(int fd, char *out, size_t capacity)
{
    struct stat status;
    size_t length = 0;

    if (fstat(fd, &status) < 0)
        return -1;
    if (!S_ISREG(status.st_mode)) {
        errno = EINVAL;
        return -1;
    }
    for (;;) {
        ssize_t more = read(fd, out + length, capacity - length);
        if (more == 0)
            return (ssize_t)length;
        if (more < 0)
            return -1;
        length += (size_t)more;
        if (length == capacity) {
            errno = EFBIG;
            return -1;
        }
    }
}

static bool has_line(const char *at, const char *end, const char *line)
{
    size_t wanted = strlen(line);

    while (at < end) {
        const char *newline = memchr(at, '\n', (size_t)(end - at)), *stop = newline ? newline : end;
        if ((size_t)(stop - at) == wanted && memcmp(at, line, wanted) == 0)
            return true;
        at = stop + 1;
    }
    return false;
}

enum enrolment enrolment_of(const char *path, const char *namespace)
{
    static char content[FILE_LIMIT];
    int error, fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    ssize_t length;

    if (fd < 0)
        return errno == ENOENT ? NOT_ENROLLED : UNKNOWN;
    length = read_file(fd, content, sizeof content);
    error = errno;
    close(fd);
    errno = error;
    if (length < 0)
        return UNKNOWN;
    return has_line(content, content + length, namespace) ? ENROLLED : NOT_ENROLLED;
}

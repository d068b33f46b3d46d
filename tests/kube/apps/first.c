/* first MARKER ADDRESS PORT [ADDRESS PORT]...: a program that talks before anything else. Its first instructions dial
 * every address; each connection says the marker and reads the answer. Tries again until it has one: a refusal is what
 * a mesh may answer, silence in clear text is what the tests look for. Then it waits for its end. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { MOST = 16, TRIES = 200, PAUSE = 50 * 1000 };

static socklen_t parse(const char *address, const char *port, struct sockaddr_storage *out)
{
    struct sockaddr_in *v4 = (struct sockaddr_in *)out;
    struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)out;

    memset(out, 0, sizeof *out);
    if (inet_pton(AF_INET, address, &v4->sin_addr) == 1) {
        v4->sin_family = AF_INET;
        v4->sin_port = htons((unsigned short)atoi(port));
        return sizeof *v4;
    }
    v6->sin6_family = AF_INET6;
    v6->sin6_port = htons((unsigned short)atoi(port));
    return inet_pton(AF_INET6, address, &v6->sin6_addr) == 1 ? sizeof *v6 : 0;
}

/* A connected socket that has said the marker, -1 with errno. */
static int dial(const struct sockaddr_storage *to, socklen_t size, const char *marker)
{
    int fd = socket(to->ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0), error;

    if (fd >= 0 && connect(fd, (const struct sockaddr *)to, size) == 0 && dprintf(fd, "%s\n", marker) > 0)
        return fd;
    error = errno;
    if (fd >= 0)
        close(fd);
    errno = error;
    return -1;
}

static int answered(int fd)
{
    struct timeval limit = {.tv_sec = 5};
    char text[512];
    ssize_t size;

    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    size = read(fd, text, sizeof text);
    if (size == 0)
        errno = ECONNRESET;
    close(fd);
    return size > 0;
}

int main(int count, char **arguments)
{
    struct sockaddr_storage to[MOST];
    socklen_t size[MOST];
    int fd[MOST], error[MOST], number = 0, failed = 0;

    for (int i = 2; i + 1 < count && number < MOST; i += 2, number++) {
        size[number] = parse(arguments[i], arguments[i + 1], &to[number]);
        fd[number] = dial(&to[number], size[number], arguments[1]);
        error[number] = errno;
    }
    for (int i = 0; i < number; i++) {
        int good = fd[i] >= 0 && (answered(fd[i]) || (error[i] = errno, 0)), tries = 1;
        const char *first = good ? "answered" : strerror(error[i]);
        for (; !good && tries < TRIES; tries++) {
            usleep(PAUSE);
            int again = dial(&to[i], size[i], arguments[1]);
            good = again >= 0 && answered(again);
        }
        printf("%s %d first try: %s; tries: %d\n", arguments[2 + 2 * i], good, first, tries);
        failed += !good;
    }
    printf("done %d\n", failed);
    fflush(stdout);
    for (;;)
        pause();
}

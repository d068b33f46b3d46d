#include "agent.h"

#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "json.h"

enum {
    NAP = 50,      /* milliseconds between attempts to connect */
    MOST_LOST = 3, /* connections that end without an answer: more is no restart, it is an agent that crashes on us */
};

static long now(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000 + time.tv_nsec / 1000000;
}

static void away(struct answer *answer, const char *seen)
{
    answer->outcome = AGENT_AWAY;
    snprintf(answer->reason, sizeof answer->reason, "%s", seen);
}

/* Does not wait: a full queue of an agent that hangs would hold connect() for ever. -1: see errno. */
static int dial(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int error, fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    if (fd < 0)
        return -1;
    memcpy(address.sun_path, path, strlen(path) + 1);
    if (connect(fd, (struct sockaddr *)&address, sizeof address) == 0)
        return fd;
    error = errno;
    close(fd);
    errno = error;
    return -1;
}

static void understand(const char *text, size_t length, struct answer *answer)
{
    struct json document, ok, reason;

    if (!json_is_valid(text, length, &document) || !json_member(document, "ok", &ok) ||
        !(json_is(ok, "true") || json_is(ok, "false"))) {
        away(answer, "its answer is not understood");
        return;
    }
    answer->outcome = json_is(ok, "true") ? AGENT_ALLOWS : AGENT_REFUSES;
    answer->reason[0] = '\0';
    if (answer->outcome == AGENT_REFUSES &&
        !(json_member(document, "reason", &reason) && json_string(reason, answer->reason, sizeof answer->reason)))
        snprintf(answer->reason, sizeof answer->reason, "it gave no reason");
}

/* False: the connection ended without an answer. */
static bool exchange(int fd, const char *request, size_t length, long deadline, struct answer *answer)
{
    struct pollfd waiting = {.fd = fd, .events = POLLIN};
    char text[ANSWER_LIMIT];
    ssize_t size;
    long left;

    if (send(fd, request, length, MSG_NOSIGNAL) != (ssize_t)length)
        return false;
    do {
        left = deadline - now();
        if (left <= 0 || poll(&waiting, 1, (int)left) == 0) {
            away(answer, "it did not answer in time");
            return true;
        }
        size = recv(fd, text, sizeof text, MSG_TRUNC);
    } while (size < 0 && (errno == EINTR || errno == EAGAIN));
    if (size <= 0)
        return false;
    if ((size_t)size > sizeof text)
        away(answer, "its answer is too long");
    else
        understand(text, (size_t)size, answer);
    return true;
}

static void nap(void)
{
    struct timespec time = {.tv_nsec = NAP * 1000000L};

    nanosleep(&time, NULL);
}

static long earlier(long one, long other)
{
    return one < other ? one : other;
}

void agent_ask(const struct agent *agent, const char *request, size_t length, struct answer *answer)
{
    long deadline = now() + agent->timeout, patience = earlier(now() + agent->retry, deadline);
    int lost = 0;

    for (;; nap()) {
        int fd = dial(agent->socket), error = errno;
        if (fd >= 0) {
            bool answered = exchange(fd, request, length, deadline, answer);
            close(fd);
            if (answered)
                return;
            away(answer, "it ended the connection without an answer");
            if (++lost == MOST_LOST)
                return;
            patience = earlier(now() + agent->retry, deadline);
        } else {
            away(answer, strerror(error));
            if (error == EAGAIN) /* it listens, its queue is full */
                patience = deadline;
        }
        if (now() >= patience)
            return;
    }
}

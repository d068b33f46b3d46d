/* The node agent at the other end of a UNIX SOCK_SEQPACKET socket: one JSON request, one JSON answer (README.md). */
#ifndef AMBIT_CNI_AGENT_H
#define AMBIT_CNI_AGENT_H

#include <stddef.h>
#include <sys/un.h>

enum { ANSWER_LIMIT = 4096 };

struct agent {
    char socket[sizeof((struct sockaddr_un *)0)->sun_path];
    long timeout; /* milliseconds for all of it */
    long retry;   /* milliseconds to wait for an agent that is being restarted */
};

struct answer {
    enum { AGENT_ALLOWS, AGENT_REFUSES, AGENT_AWAY } outcome;
    char reason[ANSWER_LIMIT]; /* UTF-8; of a refusal: the agent's; of AGENT_AWAY: what was seen; else "" */
};

void agent_ask(const struct agent *agent, const char *request, size_t length, struct answer *answer);

#endif

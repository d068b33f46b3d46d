/* What the runtime tells a plugin (CNI spec 1.1, section 2): the environment and the network configuration. */
#ifndef AMBIT_CNI_REQUEST_H
#define AMBIT_CNI_REQUEST_H

#include <limits.h>
#include <stdbool.h>

#include "agent.h"
#include "json.h"
#include "text.h"

/* Codes up to 99 are the specification's, section 5. */
enum {
    INCOMPATIBLE_VERSION = 1,
    UNKNOWN_CONTAINER = 3,
    INVALID_ENVIRONMENT = 4,
    IO_FAILURE = 5,
    NOT_DECODED = 6,
    INVALID_CONFIGURATION = 7,
    NOT_AVAILABLE = 50,
    REFUSED = 100,
    AGENT_IS_AWAY = 101,
    ENROLMENT_UNKNOWN = 102,
};

struct problem {
    int code;
    char message[ANSWER_LIMIT + PATH_MAX + 1024]; /* UTF-8 */
};

/* Always false, so that `return refuse(...)` reads as what it does. */
bool refuse(struct problem *problem, int code, const char *format, ...) __attribute__((format(printf, 3, 4)));

struct configuration {
    char version[16];
    struct agent agent;
    char enrolled[PATH_MAX]; /* file of the namespaces whose pods never start without the agent */
    struct json previous;    /* prevResult; at == NULL: none */
};

extern const char *const SUPPORTED_VERSIONS[]; /* ended by NULL */
extern const char NEWEST_VERSION[sizeof "1.1.0"];

/* `version` gets the one of the configuration as soon as it is known to be supported. */
bool read_configuration(const char *text, size_t length, struct configuration *configuration, struct problem *problem);

struct attachment {
    const char *container, *netns; /* "": not given */
    char pod_namespace[64], pod_name[254], pod_uid[129]; /* "": no pod of Kubernetes */
};

bool read_attachment(struct attachment *attachment, struct problem *problem);

/* The request to the agent (README.md). */
bool write_request(const char *command, const struct attachment *attachment, struct json previous, struct text *out,
                   struct problem *problem);

#endif

/* ambit-cni: the last plugin of a node's CNI chain. It changes nothing itself: it holds a new pod back until the node agent
 * has captured it (or knows that it is not to be), so that no packet of a pod in the mesh leaves in plain text.
 *
 * CNI spec 0.3.0 to 1.1.0. When the agent does not answer, pods of enrolled namespaces are refused and the kubelet tries
 * again; all others start. README.md has the protocol and the configuration. */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent.h"
#include "enrolled.h"
#include "json.h"
#include "request.h"
#include "text.h"

enum {
    INPUT_LIMIT = 1 << 20, /* GC lists every attachment of the node, 100 bytes each */
    INPUT_WAIT = 10000,    /* milliseconds for the runtime to write a configuration that it has already */
    REQUEST_LIMIT = 16384, /* a path, an id and 64 addresses */
    RELEASE_WAIT = 5000,   /* milliseconds; a pod that ends is not held up for an agent that hangs */
};

static char input[INPUT_LIMIT];

/* False: nothing useful, with errno. */
static bool read_input(size_t *length)
{
    struct pollfd waiting = {.fd = STDIN_FILENO, .events = POLLIN};

    for (*length = 0; *length < sizeof input;) {
        ssize_t more;
        if (poll(&waiting, 1, INPUT_WAIT) == 0) {
            errno = ETIMEDOUT;
            return false;
        }
        more = read(STDIN_FILENO, input + *length, sizeof input - *length);
        if (more == 0)
            return true;
        if (more < 0)
            return false;
        *length += (size_t)more;
    }
    errno = EFBIG;
    return false;
}

static bool write_output(const char *at, size_t length)
{
    while (length > 0) {
        ssize_t written = write(STDOUT_FILENO, at, length);
        if (written < 0)
            return false;
        at += written;
        length -= (size_t)written;
    }
    return true;
}

static void write_problem(const char *version, const struct problem *problem)
{
    static char bytes[6 * sizeof problem->message + 256]; /* every character escaped */
    struct text text = {.at = bytes, .capacity = sizeof bytes};
    char code[16];

    snprintf(code, sizeof code, "%d", problem->code);
    text_add(&text, "{\"cniVersion\":");
    text_add_quoted(&text, version);
    text_add(&text, ",\"code\":");
    text_add(&text, code);
    text_add(&text, ",\"msg\":");
    text_add_quoted(&text, problem->message);
    text_add(&text, "}\n");
    write_output(text.at, text.length);
}

/* The agent does not answer: who is enrolled waits for it, everyone else starts. */
static bool decide_alone(const struct configuration *configuration, const struct attachment *pod, const char *seen,
                         struct problem *problem)
{
    switch (enrolment_of(configuration->enrolled, pod->pod_namespace)) {
    case NOT_ENROLLED:
        fprintf(stderr, "ambit-cni: %s/%s starts outside the mesh: its namespace is not enrolled and the node agent at %s is away (%s)\n",
                pod->pod_namespace, pod->pod_name, configuration->agent.socket, seen);
        return true;
    case ENROLLED:
        return refuse(problem, AGENT_IS_AWAY,
                      "pod %s/%s is not started: its namespace is enrolled in the mesh and the node agent at %s is away (%s); "
                      "check pod ambit-node of this node in namespace ambit-system",
                      pod->pod_namespace, pod->pod_name, configuration->agent.socket, seen);
    default:
        return refuse(problem, ENROLMENT_UNKNOWN,
                      "pod %s/%s is not started: the node agent at %s is away (%s) and %s, which names the enrolled "
                      "namespaces, cannot be read (%s); check pod ambit-node of this node in namespace ambit-system",
                      pod->pod_namespace, pod->pod_name, configuration->agent.socket, seen, configuration->enrolled,
                      strerror(errno));
    }
}

static bool ask(const char *command, const struct configuration *configuration, const struct attachment *pod,
                struct answer *answer, struct problem *problem)
{
    char bytes[REQUEST_LIMIT];
    struct text request = {.at = bytes, .capacity = sizeof bytes};

    if (!write_request(command, pod, configuration->previous, &request, problem))
        return false;
    agent_ask(&configuration->agent, request.at, request.length, answer);
    return true;
}

static bool admit(const struct configuration *configuration, const struct attachment *pod, struct problem *problem)
{
    struct answer answer;

    if (!pod->pod_namespace[0]) /* a container of something other than Kubernetes */
        return true;
    if (!ask("ADD", configuration, pod, &answer, problem))
        return false;
    if (answer.outcome == AGENT_AWAY)
        return decide_alone(configuration, pod, answer.reason, problem);
    if (answer.outcome == AGENT_REFUSES)
        return refuse(problem, REFUSED,
                      "pod %s/%s is not started: the node agent cannot take it into the mesh: %s; it is tried again, see "
                      "the log of pod ambit-node of this node in namespace ambit-system",
                      pod->pod_namespace, pod->pod_name, answer.reason);
    return true;
}

static bool needs_previous(const struct configuration *configuration, struct problem *problem)
{
    return configuration->previous.at ||
           refuse(problem, INVALID_CONFIGURATION, "there is no prevResult: ambit-cni works after other plugins of a conflist");
}

static bool add(const struct configuration *configuration, struct problem *problem)
{
    struct attachment pod;

    if (!needs_previous(configuration, problem) || !read_attachment(&pod, problem))
        return false;
    if (!pod.netns[0])
        return refuse(problem, INVALID_ENVIRONMENT, "CNI_NETNS is missing");
    if (!admit(configuration, &pod, problem))
        return false;
    return (write_output(configuration->previous.at, configuration->previous.length) && write_output("\n", 1)) ||
           refuse(problem, IO_FAILURE, "the result cannot be written (%s)", strerror(errno));
}

/* What goes wrong is said and forgotten: the agent also sees that a pod is gone, and a pod must always be able to go. */
static void delete(struct configuration *configuration, struct problem *problem)
{
    struct attachment pod;
    struct answer answer;

    if (!read_attachment(&pod, problem) || !pod.pod_namespace[0])
        return;
    configuration->agent.retry = 0;
    if (configuration->agent.timeout > RELEASE_WAIT)
        configuration->agent.timeout = RELEASE_WAIT;
    if (ask("DEL", configuration, &pod, &answer, problem) && answer.outcome != AGENT_ALLOWS)
        refuse(problem, REFUSED, "the node agent did not release the pod: %s", answer.reason);
}

/* Whether the capture is whole is the agent's business, which looks all the time and repairs: a runtime may take a failed
 * CHECK for the end of the pod. */
static bool check(const struct configuration *configuration, struct problem *problem)
{
    struct attachment pod;
    struct stat status;

    if (!needs_previous(configuration, problem) || !read_attachment(&pod, problem))
        return false;
    return stat(pod.netns, &status) == 0 ||
           refuse(problem, UNKNOWN_CONTAINER, "network namespace %s is not there (%s)", pod.netns, strerror(errno));
}

/* Not available is when no pod at all could start: a node that is not ready is worse than enrolled pods that wait. */
static bool status(struct configuration *configuration, struct problem *problem)
{
    if (access(configuration->agent.socket, F_OK) == 0 || enrolment_of(configuration->enrolled, "") != UNKNOWN)
        return true;
    return refuse(problem, NOT_AVAILABLE, "the node agent is away and %s cannot be read (%s)", configuration->enrolled,
                  strerror(errno));
}

static bool write_versions(const char *version)
{
    char bytes[256];
    struct text text = {.at = bytes, .capacity = sizeof bytes};

    text_add(&text, "{\"cniVersion\":");
    text_add_quoted(&text, version);
    text_add(&text, ",\"supportedVersions\":[");
    for (int i = 0; SUPPORTED_VERSIONS[i]; i++) {
        text_add(&text, i ? "," : "");
        text_add_quoted(&text, SUPPORTED_VERSIONS[i]);
    }
    text_add(&text, "]}\n");
    return write_output(text.at, text.length);
}

static bool perform(const char *command, struct configuration *configuration, struct problem *problem)
{
    size_t length;
    bool readable = read_input(&length);

    if (strcmp(command, "VERSION") == 0) { /* answered whatever the input */
        if (readable)
            read_configuration(input, length, configuration, problem);
        return write_versions(configuration->version) || refuse(problem, IO_FAILURE, "cannot write (%s)", strerror(errno));
    }
    if (!readable)
        return refuse(problem, IO_FAILURE, "the network configuration cannot be read from standard input (%s)", strerror(errno));
    if (!read_configuration(input, length, configuration, problem))
        return false;
    if (strcmp(command, "ADD") == 0)
        return add(configuration, problem);
    if (strcmp(command, "CHECK") == 0)
        return check(configuration, problem);
    if (strcmp(command, "STATUS") == 0)
        return status(configuration, problem);
    if (strcmp(command, "GC") == 0) /* it keeps nothing; the agent knows which pods there are */
        return true;
    if (strcmp(command, "DEL") == 0)
        delete(configuration, problem);
    return problem->code == 0;
}

static bool is_command(const char *command)
{
    static const char *const commands[] = {"ADD", "DEL", "CHECK", "GC", "STATUS", "VERSION"};

    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++)
        if (strcmp(commands[i], command) == 0)
            return true;
    return false;
}

int main(void)
{
    static struct configuration configuration;
    static struct problem problem;
    const char *command = getenv("CNI_COMMAND");

    memcpy(configuration.version, NEWEST_VERSION, sizeof NEWEST_VERSION);
    if (!command || !is_command(command))
        refuse(&problem, INVALID_ENVIRONMENT, "CNI_COMMAND is none of ADD, DEL, CHECK, GC, STATUS and VERSION");
    else if (perform(command, &configuration, &problem))
        return EXIT_SUCCESS;
    if (command && strcmp(command, "DEL") == 0) {
        fprintf(stderr, "ambit-cni: DEL: %s\n", problem.message);
        return EXIT_SUCCESS;
    }
    write_problem(configuration.version, &problem);
    return EXIT_FAILURE;
}

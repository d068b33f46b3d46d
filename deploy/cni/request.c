#include "request.h"

#include <arpa/inet.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The first with prevResult, up to the newest. */
const char *const SUPPORTED_VERSIONS[] = {"0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0", NULL};
const char NEWEST_VERSION[sizeof "1.1.0"] = "1.1.0";

enum {
    DEFAULT_TIMEOUT = 30000, /* milliseconds; the kubelet gives a runtime two minutes for a pod */
    DEFAULT_RETRY = 2000,    /* milliseconds; how long the agent takes to start */
    LONGEST_WAIT = 600,      /* seconds */
    MOST_ADDRESSES = 64,
};

bool refuse(struct problem *problem, int code, const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(problem->message, sizeof problem->message, format, arguments);
    va_end(arguments);
    problem->code = code;
    return false;
}

static bool is_supported(const char *version)
{
    for (int i = 0; SUPPORTED_VERSIONS[i]; i++)
        if (strcmp(SUPPORTED_VERSIONS[i], version) == 0)
            return true;
    return false;
}

static bool read_version(struct json document, char *out, size_t capacity, struct problem *problem)
{
    char version[16];
    struct json value;

    if (!json_member(document, "cniVersion", &value) || !json_string(value, version, sizeof version))
        return refuse(problem, INCOMPATIBLE_VERSION, "the network configuration has no usable cniVersion");
    if (!is_supported(version))
        return refuse(problem, INCOMPATIBLE_VERSION, "cniVersion %s is not supported: use one from 0.3.0 to %s",
                      version, NEWEST_VERSION);
    snprintf(out, capacity, "%s", version);
    return true;
}

static bool read_path(struct json document, const char *name, const char *otherwise, char *out, size_t capacity,
                      struct problem *problem)
{
    struct json value;

    if (!json_member(document, name, &value)) {
        snprintf(out, capacity, "%s", otherwise);
        return true;
    }
    if (!json_string(value, out, capacity) || out[0] != '/')
        return refuse(problem, INVALID_CONFIGURATION, "%s of the network configuration is no absolute path of less than %zu bytes",
                      name, capacity);
    return true;
}

static bool read_seconds(struct json document, const char *name, long otherwise, long *out, struct problem *problem)
{
    struct json value;

    *out = otherwise;
    if (!json_member(document, name, &value) || json_milliseconds(value, LONGEST_WAIT, out))
        return true;
    return refuse(problem, INVALID_CONFIGURATION, "%s of the network configuration is no number from 0 to %d", name,
                  LONGEST_WAIT);
}

bool read_configuration(const char *text, size_t length, struct configuration *configuration, struct problem *problem)
{
    struct agent *agent = &configuration->agent;
    struct json document;

    if (!json_is_valid(text, length, &document) || document.at[0] != '{')
        return refuse(problem, NOT_DECODED, "the network configuration on standard input is no JSON object");
    if (!read_version(document, configuration->version, sizeof configuration->version, problem))
        return false;
    if (json_member(document, "prevResult", &configuration->previous) && configuration->previous.at[0] != '{')
        return refuse(problem, NOT_DECODED, "prevResult of the network configuration is no JSON object");
    return read_path(document, "agentSocket", "/var/run/ambit/cni.sock", agent->socket, sizeof agent->socket, problem) &&
           read_path(document, "enrolledNamespaces", "/var/lib/ambit/node/enrolled-namespaces", configuration->enrolled,
                     sizeof configuration->enrolled, problem) &&
           read_seconds(document, "timeoutSeconds", DEFAULT_TIMEOUT, &agent->timeout, problem) &&
           read_seconds(document, "retrySeconds", DEFAULT_RETRY, &agent->retry, problem);
}

static const char *environment(const char *name)
{
    const char *value = getenv(name);

    return value ? value : "";
}

/* Names of Kubernetes objects and uids, and no more: they end up in a file of lines and in messages. */
static bool is_name(const char *value, size_t length)
{
    static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._";

    for (size_t i = 0; i < length; i++)
        if (!value[i] || !strchr(allowed, value[i]))
            return false;
    return length > 0;
}

/* The value of NAME in `A=1;B=2`, "" when it is not there. */
static bool read_argument(const char *arguments, const char *name, char *out, size_t capacity, struct problem *problem)
{
    size_t wanted = strlen(name);

    out[0] = '\0';
    for (const char *at = arguments; *at;) {
        size_t length = strcspn(at, ";");
        if (length > wanted && at[wanted] == '=' && strncmp(at, name, wanted) == 0) {
            size_t size = length - wanted - 1;
            if (size >= capacity || (size > 0 && !is_name(at + wanted + 1, size)))
                return refuse(problem, INVALID_ENVIRONMENT, "%s in CNI_ARGS is no name of less than %zu characters", name,
                              capacity);
            memcpy(out, at + wanted + 1, size);
            out[size] = '\0';
        }
        at += length + (at[length] == ';');
    }
    return true;
}

bool read_attachment(struct attachment *attachment, struct problem *problem)
{
    const char *arguments = environment("CNI_ARGS");

    attachment->container = environment("CNI_CONTAINERID");
    attachment->netns = environment("CNI_NETNS");
    if (!is_name(attachment->container, strlen(attachment->container)))
        return refuse(problem, INVALID_ENVIRONMENT, "CNI_CONTAINERID is missing or no container id");
    if (strlen(attachment->netns) >= PATH_MAX || !text_is_utf8(attachment->netns, strlen(attachment->netns)))
        return refuse(problem, INVALID_ENVIRONMENT, "CNI_NETNS is no path in UTF-8");
    if (!read_argument(arguments, "K8S_POD_NAMESPACE", attachment->pod_namespace, sizeof attachment->pod_namespace, problem) ||
        !read_argument(arguments, "K8S_POD_NAME", attachment->pod_name, sizeof attachment->pod_name, problem) ||
        !read_argument(arguments, "K8S_POD_UID", attachment->pod_uid, sizeof attachment->pod_uid, problem))
        return false;
    if (!attachment->pod_namespace[0] != !attachment->pod_name[0])
        return refuse(problem, INVALID_ENVIRONMENT, "CNI_ARGS has one of K8S_POD_NAMESPACE and K8S_POD_NAME, not both");
    return true;
}

/* `192.0.2.7/24` without its prefix length. */
static bool add_address(struct json ip, struct text *out)
{
    char address[64];
    unsigned char binary[16];
    struct json value;

    if (!json_member(ip, "address", &value) || !json_string(value, address, sizeof address))
        return false;
    address[strcspn(address, "/")] = '\0';
    if (inet_pton(strchr(address, ':') ? AF_INET6 : AF_INET, address, binary) != 1)
        return false;
    text_add_quoted(out, address);
    return true;
}

static bool add_addresses(struct json previous, struct text *out, struct problem *problem)
{
    struct json ips, ip;
    size_t position = 0;

    if (!previous.at || !json_member(previous, "ips", &ips))
        return true;
    for (int count = 0; json_element(ips, &position, &ip); count++) {
        if (count)
            text_add(out, ",");
        if (count == MOST_ADDRESSES || !add_address(ip, out))
            return refuse(problem, NOT_DECODED, "ips[%d].address of prevResult is no address, or one too many", count);
    }
    return true;
}

static void add_member(struct text *out, const char *name, const char *value)
{
    text_add(out, ",");
    text_add_quoted(out, name);
    text_add(out, ":");
    text_add_quoted(out, value);
}

bool write_request(const char *command, const struct attachment *attachment, struct json previous, struct text *out,
                   struct problem *problem)
{
    text_add(out, "{\"version\":1");
    add_member(out, "command", command);
    add_member(out, "podNamespace", attachment->pod_namespace);
    add_member(out, "podName", attachment->pod_name);
    add_member(out, "podUid", attachment->pod_uid);
    add_member(out, "netns", attachment->netns);
    add_member(out, "containerId", attachment->container);
    text_add(out, ",\"addresses\":[");
    if (!add_addresses(previous, out, problem))
        return false;
    text_add(out, "]}");
    return !out->overflow || refuse(problem, INVALID_ENVIRONMENT, "CNI_NETNS or CNI_CONTAINERID is too long");
}

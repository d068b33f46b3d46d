/* Load for the byte path: a server and a client in one program, one epoll loop each, no allocation while it measures.
 *
 *   load serve PORT                              echo on PORT, sink on PORT+1, source on PORT+2
 *   load rr     HOST PORT CONNECTIONS SIZE SECONDS   ping-pong: round trips of SIZE bytes; rate and latency
 *   load up     HOST PORT STREAMS SECONDS        client writes (to PORT+1) as fast as it is taken
 *   load down   HOST PORT STREAMS SECONDS        client reads (from PORT+2)
 *   load crr    HOST PORT AT_ONCE SIZE SECONDS   connect, SIZE bytes there and back, close
 *   load idle   HOST PORT CONNECTIONS            opens them, says one byte each way, prints "ready", waits for stdin
 *   load mixed  HOST PORT RATE SECONDS           what apps do all day, at a given pace (mixed.c)
 *   load capture HOST PORT CAPTURING_PORT        dials until the kernel has turned a connection to CAPTURING_PORT
 *
 * Each client prints one line of JSON. HOST may be IPv4 or IPv6. The first fifth of SECONDS more is warm-up: it counts
 * in "total" (to divide CPU time by), not in the figures. */
#define _GNU_SOURCE
#include "load.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <sys/resource.h>
#include <time.h>

enum { MOST_SAMPLES = 1 << 23 };
enum role { NONE, LISTEN_ECHO, LISTEN_SINK, LISTEN_SOURCE, ECHO, SINK, SOURCE };

char chunk[CHUNK];
int poller;

void die(const char *what) {
  fprintf(stderr, "load: %s: %s\n", what, strerror(errno));
  exit(1);
}

double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec + t.tv_nsec * 1e-9;
}

void watch(int fd, uint32_t events) {
  struct epoll_event event = {.events = events, .data.fd = fd};
  if (epoll_ctl(poller, EPOLL_CTL_ADD, fd, &event)) die("epoll_ctl");
}

static void without_delay(int fd) {
  int one = 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
}

/* --- server */

static uint8_t role_of[MOST_FDS];

static void serve_on(int port, enum role role) {
  struct sockaddr_in6 address = {.sin6_family = AF_INET6, .sin6_port = htons(port), .sin6_addr = in6addr_any};
  int one = 1, zero = 0, fd = socket(AF_INET6, SOCK_STREAM | SOCK_NONBLOCK, 0);
  if (fd < 0) die("socket");
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &zero, sizeof zero);
  if (bind(fd, (struct sockaddr *)&address, sizeof address) || listen(fd, 4096)) die("listen");
  role_of[fd] = role;
  watch(fd, EPOLLIN);
}

static void accept_all(int listener) {
  static const enum role becomes[] = {[LISTEN_ECHO] = ECHO, [LISTEN_SINK] = SINK, [LISTEN_SOURCE] = SOURCE};
  for (int fd; (fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0;) {
    if (fd >= MOST_FDS) {
      close(fd);
      continue;
    }
    without_delay(fd);
    role_of[fd] = becomes[role_of[listener]];
    watch(fd, role_of[fd] == SOURCE ? EPOLLIN | EPOLLOUT : EPOLLIN);
  }
}

static void finish(int fd) {
  role_of[fd] = NONE;
  close(fd);
}

static void serve_ready(int fd, uint32_t events) {
  if (role_of[fd] == SOURCE && !(events & (EPOLLHUP | EPOLLERR | EPOLLIN))) {
    if (write(fd, chunk, CHUNK) < 0 && errno != EAGAIN) finish(fd);
    return;
  }
  ssize_t got = read(fd, chunk, CHUNK);
  if (got <= 0) {
    if (got == 0 || errno != EAGAIN) finish(fd);
    return;
  }
  /* Echoes are small here: what the socket does not take at once is an error of the measurement, and said. */
  if (role_of[fd] == ECHO && write(fd, chunk, got) != got) finish(fd);
}

static void serve(int port) {
  serve_on(port, LISTEN_ECHO);
  serve_on(port + 1, LISTEN_SINK);
  serve_on(port + 2, LISTEN_SOURCE);
  puts("serving");
  fflush(stdout);
  struct epoll_event events[EVENTS];
  for (;;) {
    int count = epoll_wait(poller, events, EVENTS, -1);
    for (int i = 0; i < count; i++) {
      int fd = events[i].data.fd;
      if (role_of[fd] && role_of[fd] <= LISTEN_SOURCE) accept_all(fd);
      else if (role_of[fd]) serve_ready(fd, events[i].events);
    }
  }
}

/* --- client */

static struct sockaddr_storage target;
static socklen_t target_size;

static void aim(const char *host, int port) {
  char service[16];
  snprintf(service, sizeof service, "%d", port);
  struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICHOST}, *found;
  if (getaddrinfo(host, service, &hints, &found)) die(host);
  memcpy(&target, found->ai_addr, target_size = found->ai_addrlen);
  freeaddrinfo(found);
}

int dial_beside(int ports, int flags) {
  struct sockaddr_storage address = target;
  in_port_t *port = &((struct sockaddr_in *)&address)->sin_port; /* the same place in IPv6 */
  *port = htons(ntohs(*port) + ports);
  int fd = socket(address.ss_family, SOCK_STREAM | flags, 0);
  if (fd < 0) die("socket");
  without_delay(fd);
  if (connect(fd, (struct sockaddr *)&address, target_size) && errno != EINPROGRESS) die("connect");
  return fd;
}

static int dial(int flags) { return dial_beside(0, flags); }

static int dial_and_wait(void) {
  int fd = dial(0);
  fcntl(fd, F_SETFL, O_NONBLOCK);
  return fd;
}

static float *samples; /* microseconds */
static size_t sample_count;

void sample(double seconds) {
  if (sample_count < MOST_SAMPLES) samples[sample_count++] = seconds * 1e6;
}

static int ascending(const void *a, const void *b) {
  float x = *(const float *)a, y = *(const float *)b;
  return (x > y) - (x < y);
}

static double percentile(double part) {
  return sample_count ? samples[(size_t)(part * (sample_count - 1))] : 0;
}

void report_latency(double seconds, size_t total, size_t errors) {
  qsort(samples, sample_count, sizeof *samples, ascending);
  printf("{\"total\": %zu, \"rate\": %.1f, \"p50\": %.1f, \"p99\": %.1f, \"p999\": %.1f, \"errors\": %zu}\n",
         total, sample_count / seconds, percentile(.5), percentile(.99), percentile(.999), errors);
}

static void round_trips(int connections, size_t size, double seconds) {
  double *sent_at = calloc(MOST_FDS, sizeof *sent_at);
  size_t *received = calloc(MOST_FDS, sizeof *received), errors = 0, total = 0;
  for (int i = 0; i < connections; i++) {
    int fd = dial_and_wait();
    watch(fd, EPOLLIN);
    sent_at[fd] = now();
    if (write(fd, chunk, size) != (ssize_t)size) die("write");
  }
  double warm = now() + seconds * .2, end = warm + seconds;
  struct epoll_event events[EVENTS];
  for (double t = now(); t < end && !errors;) {
    int count = epoll_wait(poller, events, EVENTS, 1000);
    t = now();
    for (int i = 0; i < count; i++) {
      int fd = events[i].data.fd;
      ssize_t got = read(fd, chunk, CHUNK);
      if (got <= 0) {
        errors++;
        break;
      }
      if ((received[fd] += got) < size) continue;
      received[fd] = 0;
      double done = now();
      total++;
      if (done > warm) sample(done - sent_at[fd]);
      sent_at[fd] = done;
      if (write(fd, chunk, size) != (ssize_t)size) errors++;
    }
  }
  report_latency(seconds, total, errors);
}

static void bulk(int streams, double seconds, int writes) {
  for (int i = 0; i < streams; i++) watch(dial_and_wait(), writes ? EPOLLOUT : EPOLLIN);
  double warm = now() + seconds * .2, end = warm + seconds, began = 0;
  uint64_t moved = 0, total = 0;
  size_t errors = 0;
  struct epoll_event events[EVENTS];
  double t = now();
  while (t < end && !errors) {
    int count = epoll_wait(poller, events, EVENTS, 1000);
    for (int i = 0; i < count; i++) {
      int fd = events[i].data.fd;
      ssize_t size = writes ? write(fd, chunk, CHUNK) : read(fd, chunk, CHUNK);
      if (size == 0 || (size < 0 && errno != EAGAIN)) errors++;
      else if (size > 0) {
        total += size;
        if (began) moved += size;
      }
    }
    t = now();
    if (!began && t > warm) began = t;
  }
  printf("{\"total\": %llu, \"rate\": %.0f, \"errors\": %zu}\n", (unsigned long long)total,
         began ? moved / (t - began) : 0., errors);
}

static double *dialled_at;

static void dial_again(void) {
  double t = now();
  int fd = dial(SOCK_NONBLOCK);
  dialled_at[fd] = t;
  watch(fd, EPOLLOUT);
}

static int send_request(int fd, size_t size) {
  struct epoll_event next = {.events = EPOLLIN, .data.fd = fd};
  return write(fd, chunk, size) == (ssize_t)size && !epoll_ctl(poller, EPOLL_CTL_MOD, fd, &next);
}

static void connect_request_close(int at_once, size_t size, double seconds) {
  dialled_at = calloc(MOST_FDS, sizeof *dialled_at);
  size_t *received = calloc(MOST_FDS, sizeof *received), errors = 0, total = 0;
  struct epoll_event events[EVENTS];
  for (int i = 0; i < at_once; i++) dial_again();
  double warm = now() + seconds * .2, end = warm + seconds;
  for (double t = now(); t < end && errors < 100;) {
    int count = epoll_wait(poller, events, EVENTS, 1000);
    t = now();
    for (int i = 0; i < count; i++) {
      int fd = events[i].data.fd;
      if (events[i].events & EPOLLOUT && send_request(fd, size)) continue;
      ssize_t got = read(fd, chunk, CHUNK);
      if (got > 0 && (received[fd] += got) < size) continue;
      total++;
      if (got <= 0) errors++;
      else if (t > warm) sample(now() - dialled_at[fd]);
      received[fd] = 0;
      close(fd);
      dial_again();
    }
  }
  report_latency(seconds, total, errors);
}

static void stay_idle(int connections) {
  for (int i = 0; i < connections; i++) {
    int fd = dial(0);
    char byte = 'x';
    if (write(fd, &byte, 1) != 1 || read(fd, &byte, 1) != 1) die("one byte there and back");
  }
  puts("ready");
  fflush(stdout);
  getchar();
  printf("{\"connections\": %d}\n", connections);
}

/* Whether the kernel has sent this connection elsewhere than it was dialled: the table of sockets knows, and no call on
 * the socket itself does, because capture hides itself from the app. */
static int is_turned(int fd, unsigned to_port) {
  struct sockaddr_storage own;
  socklen_t size = sizeof own;
  getsockname(fd, (struct sockaddr *)&own, &size);
  unsigned own_port = ntohs(((struct sockaddr_in *)&own)->sin_port), local, remote; /* the same place in IPv6 */
  char line[512];
  int found = 0;
  FILE *table = fopen(own.ss_family == AF_INET6 ? "/proc/self/net/tcp6" : "/proc/self/net/tcp", "r");
  while (table && !found && fgets(line, sizeof line, table))
    found = sscanf(line, "%*d: %*[0-9A-F]:%X %*[0-9A-F]:%X", &local, &remote) == 2 && local == own_port && remote == to_port;
  if (table) fclose(table);
  return found;
}

/* Dials once a millisecond, a byte there and back each time, and tells when the first captured one had its answer:
 * seconds on the monotonic clock, which all processes share. */
static void await_capture(unsigned capturing_port) {
  puts("ready");
  fflush(stdout);
  for (double end = now() + 30; now() < end; usleep(1000)) {
    int fd = dial(0);
    char byte = 'x';
    int turned = is_turned(fd, capturing_port);
    int answered = write(fd, &byte, 1) == 1 && read(fd, &byte, 1) == 1;
    if (turned && answered) {
      printf("{\"captured_at\": %.6f}\n", now());
      return;
    }
    close(fd);
  }
  die("no connection was captured");
}

int main(int count, char **words) {
  signal(SIGPIPE, SIG_IGN);
  struct rlimit files;
  getrlimit(RLIMIT_NOFILE, &files);
  files.rlim_cur = files.rlim_max;
  setrlimit(RLIMIT_NOFILE, &files);
  poller = epoll_create1(0);
  samples = malloc(MOST_SAMPLES * sizeof *samples);
  const char *mode = count > 2 ? words[1] : "";
  if (!strcmp(mode, "serve") && count == 3) serve(atoi(words[2]));
  if (count < 5) {
    fprintf(stderr, "usage: load serve PORT | rr|up|down|crr|idle|mixed|capture HOST PORT ... (see load.c)\n");
    return 2;
  }
  int port = atoi(words[3]), number = atoi(words[4]);
  aim(words[2], port + (!strcmp(mode, "up") ? 1 : !strcmp(mode, "down") ? 2 : 0));
  if (!strcmp(mode, "rr") && count == 7) round_trips(number, atoi(words[5]), atof(words[6]));
  else if (!strcmp(mode, "up") && count == 6) bulk(number, atof(words[5]), 1);
  else if (!strcmp(mode, "down") && count == 6) bulk(number, atof(words[5]), 0);
  else if (!strcmp(mode, "crr") && count == 7) connect_request_close(number, atoi(words[5]), atof(words[6]));
  else if (!strcmp(mode, "idle") && count == 5) stay_idle(number);
  else if (!strcmp(mode, "mixed") && count == 6) mixed(atof(words[4]), atof(words[5]));
  else if (!strcmp(mode, "capture") && count == 5) await_capture(number);
  else return 2;
  return 0;
}

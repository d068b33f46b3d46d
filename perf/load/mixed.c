/* What apps do to a mesh all day: requests on connections that stand, connections for one request, half-closes, resets,
 * and transfers whose sender or receiver pauses on the way.
 *
 *   load mixed HOST PORT RATE SECONDS
 *
 * RATE actions begin per second; with 0 as many as go, which is how to find out the capacity. What could not begin in
 * time, since AT_ONCE were under way, is left out, and said. The choice of actions is the same in each run. Latency is
 * that of requests on connections that stand. */
#define _GNU_SOURCE
#include "load.h"

enum kind { TALK, SHORT, HALF_CLOSE, RESET, RESET_BY_READER, UP, DOWN, KINDS };
enum { AT_ONCE = 48, STANDING = 32, SLICE = 64 << 10, PATIENCE = 15 };
static const double PAUSE = .05; /* seconds */

/* In the proportions of `weight`. A reader that closes before the end makes a reset, too. */
static const struct {
  int port, weight;
  size_t send, receive;
} actions[KINDS] = {
    [TALK] = {ECHO_PORT, 40, 128, 128},
    [SHORT] = {ECHO_PORT, 12, 1024, 1024},
    [HALF_CLOSE] = {ECHO_PORT, 4, 16 << 10, 16 << 10},
    [RESET] = {ECHO_PORT, 2, 1024, 0},
    [RESET_BY_READER] = {ECHO_PORT, 2, 1024, 1},
    [UP] = {SINK_PORT, 2, 1 << 20, 0},
    [DOWN] = {SOURCE_PORT, 2, 0, 1 << 20},
};

static struct connection {
  enum kind kind;
  size_t to_send, to_receive;
  size_t pause_at; /* that much left to send or receive */
  double began;
} of[MOST_FDS];

static int idle[STANDING], idle_count; /* standing connections that have nothing to do */
static struct {
  int fd;
  double until;
} paused[AT_ONCE]; /* in the order of their ends: all pauses are equally long */
static int paused_count, under_way;
static size_t done, failed;

static void want(int fd, unsigned events) {
  struct epoll_event event = {.events = events, .data.fd = fd};
  if (epoll_ctl(poller, EPOLL_CTL_MOD, fd, &event)) die("epoll_ctl");
}

static enum kind choose(void) {
  static unsigned chance = 1;
  int total = 0;
  for (int i = 0; i < KINDS; i++) total += actions[i].weight;
  chance = chance * 1103515245 + 12345;
  int left = (chance >> 16) % total;
  for (int i = 0; i < KINDS; i++)
    if ((left -= actions[i].weight) < 0) return i;
  return TALK;
}

static void stand(void) {
  int fd = dial_beside(ECHO_PORT, SOCK_NONBLOCK);
  of[fd] = (struct connection){.kind = TALK};
  watch(fd, 0);
  idle[idle_count++] = fd;
}

static void begin(enum kind kind) {
  int fd = kind == TALK && idle_count ? idle[--idle_count] : -1;
  if (fd < 0) {
    if (kind == TALK) kind = SHORT; /* all are busy */
    watch(fd = dial_beside(actions[kind].port, SOCK_NONBLOCK), 0);
  }
  size_t all = actions[kind].send > actions[kind].receive ? actions[kind].send : actions[kind].receive;
  of[fd] = (struct connection){kind, actions[kind].send, actions[kind].receive, kind >= UP ? all / 2 : 0, now()};
  want(fd, of[fd].to_send ? EPOLLOUT : EPOLLIN);
  under_way++;
}

static void end(int fd, int failure) {
  struct linger none = {.l_onoff = 1};
  enum kind kind = of[fd].kind;
  under_way--;
  done++;
  failed += failure;
  if (kind == TALK && !failure) {
    sample(now() - of[fd].began);
    want(fd, 0);
    idle[idle_count++] = fd;
    return;
  }
  if (kind == RESET || kind == RESET_BY_READER) setsockopt(fd, SOL_SOCKET, SO_LINGER, &none, sizeof none);
  close(fd);
  if (kind == TALK) stand();
}

static void rest(int fd) {
  of[fd].pause_at = 0;
  want(fd, 0);
  paused[paused_count].fd = fd;
  paused[paused_count++].until = now() + PAUSE;
}

static void resume(void) {
  int over = 0;
  for (double t = now(); over < paused_count && paused[over].until <= t; over++)
    want(paused[over].fd, of[paused[over].fd].to_send ? EPOLLOUT : EPOLLIN);
  memmove(paused, paused + over, (paused_count -= over) * sizeof *paused);
}

static void send_more(int fd) {
  struct connection *c = &of[fd];
  ssize_t size = write(fd, chunk, c->to_send < SLICE ? c->to_send : SLICE);
  if (size < 0 && errno != EAGAIN) return end(fd, 1);
  if (size > 0) c->to_send -= size;
  if (c->to_send) {
    if (c->to_send <= c->pause_at) rest(fd);
    return;
  }
  if (c->kind == HALF_CLOSE || c->kind == UP) shutdown(fd, SHUT_WR);
  if (c->kind == RESET) return end(fd, 0);
  want(fd, EPOLLIN);
}

/* The echo of a half-close, and the answer to all that went up, is an end and not a byte more. */
static void receive_more(int fd) {
  struct connection *c = &of[fd];
  int until_the_end = c->kind == HALF_CLOSE || c->kind == UP;
  ssize_t size = read(fd, chunk, c->to_receive + until_the_end < SLICE ? c->to_receive + until_the_end : SLICE);
  if (size < 0 && errno == EAGAIN) return;
  if (size <= 0) return end(fd, size < 0 || !until_the_end || c->to_receive);
  if ((size_t)size > c->to_receive) return end(fd, 1);
  c->to_receive -= size;
  if (!c->to_receive && !until_the_end) return end(fd, 0);
  if (c->to_receive && c->to_receive <= c->pause_at) rest(fd);
}

static int milliseconds_until(double next) {
  double wake = next, t = now();
  if (paused_count && paused[0].until < wake) wake = paused[0].until;
  return wake <= t ? 0 : wake - t > 1 ? 1000 : (int)((wake - t) * 1e3) + 1;
}

static void turn(double next) {
  static struct epoll_event events[EVENTS];
  int count = epoll_wait(poller, events, EVENTS, milliseconds_until(next));
  for (int i = 0; i < count; i++) {
    int fd = events[i].data.fd;
    if (!of[fd].to_send && !of[fd].to_receive && of[fd].kind == TALK) { /* it broke while it was idle */
      for (int j = 0; j < idle_count; j++)
        if (idle[j] == fd) idle[j] = idle[--idle_count];
      close(fd);
      failed++;
      stand();
    } else if (events[i].events & (EPOLLERR | EPOLLHUP) && !(events[i].events & (EPOLLIN | EPOLLOUT))) {
      end(fd, 1);
    } else if (of[fd].to_send) send_more(fd);
    else receive_more(fd);
  }
  resume();
}

void mixed(double rate, double seconds) {
  size_t late = 0;
  for (int i = 0; i < STANDING; i++) stand();
  double began = now(), next = began, over = began + seconds;
  for (double t = began; t < over; t = now()) {
    for (; under_way < AT_ONCE && next <= t; next = rate ? next + 1 / rate : t) {
      begin(choose());
      if (!rate && under_way == AT_ONCE) break;
    }
    if (rate && t - next > 1) { /* more than a second behind: what is missed is missed */
      late += (t - next) * rate;
      next = t;
    }
    turn(under_way < AT_ONCE ? next : t + 1);
  }
  for (double last = now() + PATIENCE; under_way && now() < last;) turn(last);
  if (late) fprintf(stderr, "%zu actions could not begin in time\n", late);
  report_latency(seconds, done, failed + under_way);
}

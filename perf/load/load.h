/* What the modes of the load program share. */
#ifndef LOAD_H
#define LOAD_H

#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { MOST_FDS = 1 << 17, EVENTS = 512, CHUNK = 256 << 10 };
enum { ECHO_PORT, SINK_PORT, SOURCE_PORT }; /* from the one that is given */

extern char chunk[CHUNK];
extern int poller;

void die(const char *what);
double now(void); /* seconds, monotonic */
void watch(int fd, unsigned events);
int dial_beside(int ports, int flags); /* a connection to the given port + `ports`; with SOCK_NONBLOCK it may not stand yet */
void sample(double seconds);
void report_latency(double seconds, size_t total, size_t errors);

void mixed(double rate, double seconds);

#endif

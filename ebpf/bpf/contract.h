/* What the kernel programs and user space agree on: ports, structures, maps. ebpf/contract.py says the same in Python.
 *
 * Addresses are 16 bytes in network order, IPv4 as ::ffff:a.b.c.d, so that one key covers IPv4, IPv6 and IPv4 on an
 * IPv6 socket. Every structure is free of padding: the kernel compares map keys byte by byte.
 * CONTRACT_VERSION goes up when the meaning or the layout of anything here changes.
 */
#ifndef AMBIT_CONTRACT_H
#define AMBIT_CONTRACT_H

#define CONTRACT_VERSION 2

#define PORT_OUTBOUND 15001 /* ztunnel, loopback of the pod: captured outbound connections */
#define PORT_INBOUND 15006  /* ztunnel, addresses of the pod: captured inbound connections */
#define PORT_HBONE 15008    /* ztunnel, addresses of the pod: tunnels, which must not be captured again */
#define PORT_DNS 15053      /* ztunnel, loopback of the pod: captured DNS */
#define PORT_DOMAIN 53      /* what an app dials for DNS */

#define MAX_PODS 4096         /* per node; Kubernetes recommends 110 */
#define MAX_LISTENERS 16384   /* four addresses per pod */
#define MAX_EXEMPT_CGROUPS 64 /* ztunnel and its replacement during an upgrade need two */
#define MAX_IN_FLIGHT 32768   /* handshakes at one time; an entry lives as long as a handshake over loopback */
#define MAX_NODE_FLOWS 8192   /* the node's own connections to its captured pods: a few probes per pod */
#define MAX_DNS_CLIENTS 4096  /* queries between recvmsg() of the proxy and its look-up, microseconds */

struct endpoint {
	__be32 ip[4];
	__be16 port;
	__u16 zero;
};

/* A peer that stands for another: the address that is really at the other end, and the one the app gets to see. */
struct disguise {
	struct endpoint actual;
	struct endpoint shown;
};

/* A TCP connection inside one network namespace, from the side that dials to the side that accepts. */
struct flow {
	__u64 netns;
	struct endpoint connector;
	struct endpoint acceptor;
};

struct dns_client {
	__u64 netns;
	struct endpoint source;
	__u32 zero;
};

struct local_address {
	__be32 ip[4];
};

/* A captured pod: the addresses its sockets have when they leave the pod; zero where it has none of that family. */
struct pod {
	__be32 ip4;
	__be32 ip6[4];
};

#ifdef AMBIT_PINS /* the directory of the pins, a string; user space tests read the layout without it */

#define PINNED(type, key, value, name, entries, flags) \
	BPF_TABLE_PINNED(type, key, value, name, entries, AMBIT_PINS "/maps/" #name, flags)

PINNED("array", __u32, __u32, contract, 1, 0); /* [0] = CONTRACT_VERSION of the programs that made these maps */

/* Written by the node: who is captured (by netns cookie), and who never is (by cgroup id: a process cannot move itself). */
PINNED("hash", __u64, struct pod, enrolled, MAX_PODS, 0);
PINNED("hash", __u64, __u32, exempt_cgroups, MAX_EXEMPT_CGROUPS, 0);
PINNED("sockhash", struct local_address, __u64, listeners, MAX_LISTENERS, 0);

/* Who may reach captured pods past ztunnel: sockets of the node's own network namespace ([0], a cookie; 0: nobody), by
 * what they have dialled while they live. Pods by address, so that only those connections are noted. */
PINNED("array", __u32, __u64, node_netns, 1, 0);
PINNED("hash", struct local_address, __u64, pods_by_address, 2 * MAX_PODS, 0);
PINNED("hash", struct flow, __u32, node_flows, MAX_NODE_FLOWS, 0);

/* What the connector tells the acceptor, while the handshake lasts: for ztunnel's listener the original destination,
 * for an app the real client. Sockets keep the rest: it lives and dies with them. */
PINNED("hash", struct flow, struct endpoint, in_flight, MAX_IN_FLIGHT, 0);
PINNED("sk_storage", int, struct endpoint, original_dst, 0, BPF_F_NO_PREALLOC); /* of sockets that ztunnel accepted */
PINNED("sk_storage", int, struct endpoint, presented, 0, BPF_F_NO_PREALLOC);    /* of sockets that ztunnel dials with */
PINNED("sk_storage", int, struct disguise, shown_peer, 0, BPF_F_NO_PREALLOC);   /* of the app's sockets */
PINNED("sk_storage", int, struct disguise, dns_resolver, 0, BPF_F_NO_PREALLOC); /* of the app's UDP sockets */

/* Which resolver an app meant: exactly, written when the proxy receives its query; else the last one of its pod. */
PINNED("lru_hash", struct dns_client, struct endpoint, dns_clients, MAX_DNS_CLIENTS, 0);
PINNED("lru_hash", __u64, struct endpoint, last_resolver, MAX_PODS, 0);

#endif
#endif

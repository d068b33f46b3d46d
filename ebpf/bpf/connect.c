/* cgroup/connect4, connect6: an enrolled pod's dial goes to the ztunnel listener on its own loopback. */

#define PROTOCOL_MPTCP 262 /* IPPROTO_MPTCP; its subflows are TCP, and ztunnel's answer makes it fall back to TCP */

static __always_inline __u16 listener_for(__u32 protocol, __be16 port)
{
	bool domain = port == bpf_htons(PORT_DOMAIN);
	if (protocol == IPPROTO_TCP || protocol == PROTOCOL_MPTCP)
		return domain ? PORT_DNS : PORT_OUTBOUND;
	return protocol == IPPROTO_UDP && domain ? PORT_DNS : 0;
}

/* After the SYN has left, a handover that finds no room can only become a reset. So see now whether there is room. */
static __always_inline bool can_hand_over(struct bpf_sock_addr *ctx, __u64 netns)
{
	struct endpoint nothing = {};
	struct flow probe = {.netns = netns};
	__u64 cookie = bpf_get_socket_cookie(ctx);
	probe.connector.ip[0] = cookie >> 32; /* no real flow: its acceptor is zero */
	probe.connector.ip[1] = cookie;
	if (in_flight.update(&probe, &nothing))
		return false;
	in_flight.delete(&probe);
	return true;
}

/* A socket bound to a device cannot reach loopback. Nor does it need its device: ztunnel is the one who dials. */
static __always_inline bool reach_loopback(struct bpf_sock_addr *ctx)
{
	char none[4] = {};
	return !ctx->sk->bound_dev_if || !bpf_setsockopt(ctx, SOL_SOCKET, SO_BINDTODEVICE, none, sizeof(none));
}

/* The local address that the socket would have without a mesh: getsockname() shows it, and ztunnel sees who dials. What
 * the app has bound stays as it is, and a bind that fails only leaves the loopback address: getsockname.c hides that.
 *
 * IPv4 only. The kernel answers for an IPv6 socket that is closed already (TIME_WAIT) on the interface of the pod's
 * address, so that no answer reaches ::1. There getsockname.c does it all. */
static __always_inline void speak_as_pod4(struct bpf_sock_addr *ctx, const struct pod *pod)
{
	struct sockaddr_in own = {.sin_family = AF_INET, .sin_addr = {pod->ip4}};
	if (pod->ip4 && ctx->protocol == IPPROTO_TCP && !ctx->sk->src_ip4 && !ctx->sk->src_port)
		bpf_bind(ctx, (struct sockaddr *)&own, sizeof(own));
}

static __always_inline void speak_as_pod4_mapped(struct bpf_sock_addr *ctx, const struct pod *pod)
{
	struct sockaddr_in6 own = {.sin6_family = AF_INET6};
	own.sin6_addr.in6_u.u6_addr32[2] = V4_PREFIX;
	own.sin6_addr.in6_u.u6_addr32[3] = pod->ip4;
	bool unbound = !(ctx->sk->src_ip6[0] | ctx->sk->src_ip6[1] | ctx->sk->src_ip6[2] | ctx->sk->src_ip6[3]);
	if (pod->ip4 && ctx->protocol == IPPROTO_TCP && unbound && !ctx->sk->src_port)
		bpf_bind(ctx, (struct sockaddr *)&own, sizeof(own));
}

static __always_inline bool remember(struct bpf_sock_addr *ctx, __u64 netns, const struct disguise *disguise)
{
	struct disguise *peer = shown_peer.sk_storage_get(ctx->sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	if (!peer || !reach_loopback(ctx))
		return false;
	*peer = *disguise;
	if (ctx->protocol == IPPROTO_UDP)
		return remember_resolver(ctx, netns, disguise);
	return can_hand_over(ctx, netns);
}

/* ztunnel dials an app on behalf of a client that it will present. */
static __always_inline int exempt_dial(struct bpf_sock_addr *ctx, __u64 netns)
{
	if (!presented.sk_storage_get(ctx->sk, 0, 0))
		return ALLOW;
	return can_hand_over(ctx, netns) ? ALLOW : REFUSE;
}

#define CAPTURED 2 /* besides ALLOW and REFUSE, which leave the dial as it is */

/* What becomes of a dial by a process of this node; `disguise` and `pod` are filled in when it is captured. */
static __always_inline int decide(struct bpf_sock_addr *ctx, const struct endpoint *dialled, struct disguise *disguise,
				  struct pod **pod)
{
	__u64 netns = bpf_get_netns_cookie(ctx);
	*pod = enrolled.lookup(&netns);
	if (!*pod)
		return ALLOW;
	if (is_exempt())
		return exempt_dial(ctx, netns);
	__u16 port = listener_for(ctx->protocol, dialled->port);
	if (!port || is_loopback(dialled))
		return ALLOW;
	disguise->actual = ztunnel_for(dialled, port);
	disguise->shown = *dialled;
	return remember(ctx, netns, disguise) ? CAPTURED : REFUSE;
}

int connect4(struct bpf_sock_addr *ctx)
{
	struct endpoint dialled = read4(ctx);
	struct disguise disguise = {};
	struct pod *pod;
	int verdict = decide(ctx, &dialled, &disguise, &pod);
	if (verdict != CAPTURED)
		return verdict;
	speak_as_pod4(ctx, pod);
	write4(ctx, &disguise.actual);
	return ALLOW;
}

int connect6(struct bpf_sock_addr *ctx)
{
	struct endpoint dialled = read6(ctx);
	struct disguise disguise = {};
	struct pod *pod;
	int verdict = decide(ctx, &dialled, &disguise, &pod);
	if (verdict != CAPTURED)
		return verdict;
	if (is_v4(&dialled))
		speak_as_pod4_mapped(ctx, pod);
	write6(ctx, &disguise.actual);
	return ALLOW;
}

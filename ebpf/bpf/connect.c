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

int connect4(struct bpf_sock_addr *ctx)
{
	__u64 netns = bpf_get_netns_cookie(ctx);
	if (!enrolled.lookup(&netns))
		return ALLOW;
	if (is_exempt())
		return exempt_dial(ctx, netns);
	struct endpoint dialled = read4(ctx);
	__u16 port = listener_for(ctx->protocol, dialled.port);
	if (!port || is_loopback(&dialled))
		return ALLOW;
	struct disguise disguise = {.actual = ztunnel_for(&dialled, port), .shown = dialled};
	if (!remember(ctx, netns, &disguise))
		return REFUSE;
	write4(ctx, &disguise.actual);
	return ALLOW;
}

int connect6(struct bpf_sock_addr *ctx)
{
	__u64 netns = bpf_get_netns_cookie(ctx);
	if (!enrolled.lookup(&netns))
		return ALLOW;
	if (is_exempt())
		return exempt_dial(ctx, netns);
	struct endpoint dialled = read6(ctx);
	__u16 port = listener_for(ctx->protocol, dialled.port);
	if (!port || is_loopback(&dialled))
		return ALLOW;
	struct disguise disguise = {.actual = ztunnel_for(&dialled, port), .shown = dialled};
	if (!remember(ctx, netns, &disguise))
		return REFUSE;
	write6(ctx, &disguise.actual);
	return ALLOW;
}

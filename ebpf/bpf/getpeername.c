/* cgroup/getpeername4, getpeername6, which accept() passes too: a client sees what it dialled, a server who called. */

/* The socket in an app's hands when it uses MPTCP is not the one that connected: that is its first subflow. */
static __always_inline bool subflow_peer(struct bpf_sock_addr *ctx, const struct endpoint *actual, struct endpoint *shown)
{
	struct bpf_sock_tuple tuple = {};
	struct bpf_sock *subflow;
	if (is_v4(actual)) {
		tuple.ipv4.saddr = actual->ip[3];
		tuple.ipv4.sport = actual->port;
		tuple.ipv4.daddr = ctx->sk->src_ip4;
		tuple.ipv4.dport = bpf_htons(ctx->sk->src_port);
		subflow = bpf_sk_lookup_tcp(ctx, &tuple, sizeof(tuple.ipv4), BPF_F_CURRENT_NETNS, 0);
	} else {
		__builtin_memcpy(tuple.ipv6.saddr, actual->ip, sizeof(actual->ip));
		tuple.ipv6.daddr[0] = ctx->sk->src_ip6[0];
		tuple.ipv6.daddr[1] = ctx->sk->src_ip6[1];
		tuple.ipv6.daddr[2] = ctx->sk->src_ip6[2];
		tuple.ipv6.daddr[3] = ctx->sk->src_ip6[3];
		tuple.ipv6.sport = actual->port;
		tuple.ipv6.dport = bpf_htons(ctx->sk->src_port);
		subflow = bpf_sk_lookup_tcp(ctx, &tuple, sizeof(tuple.ipv6), BPF_F_CURRENT_NETNS, 0);
	}
	if (!subflow)
		return false;
	struct disguise *peer = shown_peer.sk_storage_get(subflow, 0, 0);
	bool disguised = peer && same_endpoint(&peer->actual, actual);
	if (disguised)
		*shown = peer->shown;
	bpf_sk_release(subflow);
	return disguised;
}

/* Compared with the real peer, because a socket may have been disconnected and connected elsewhere since. */
static __always_inline bool peer_to_show(struct bpf_sock_addr *ctx, const struct endpoint *actual, struct endpoint *shown)
{
	if (ctx->protocol == PROTOCOL_MPTCP)
		return is_loopback(actual) && subflow_peer(ctx, actual, shown);
	struct disguise *peer = shown_peer.sk_storage_get(ctx->sk, 0, 0);
	if (!peer || !same_endpoint(&peer->actual, actual))
		return false;
	*shown = peer->shown;
	return true;
}

int getpeername4(struct bpf_sock_addr *ctx)
{
	struct endpoint actual = read4(ctx), shown;
	if (peer_to_show(ctx, &actual, &shown))
		write4(ctx, &shown);
	return ALLOW;
}

int getpeername6(struct bpf_sock_addr *ctx)
{
	struct endpoint actual = read6(ctx), shown;
	if (peer_to_show(ctx, &actual, &shown))
		write6(ctx, &shown);
	return ALLOW;
}

/* cgroup/getsockname4, getsockname6: a captured socket whose own address is that of loopback shows its pod's. In IPv6 that
 * is all of them, in IPv4 those of which the app had bound the port before (connect.c). */

/* The pod of a socket that is captured, is still connected to ztunnel, and has the loopback address `own`. */
static __always_inline struct pod *pod_to_show(struct bpf_sock_addr *ctx, const struct endpoint *own)
{
	bool unspecified = !(own->ip[0] | own->ip[1] | own->ip[3]);
	if (ctx->protocol != IPPROTO_TCP || unspecified || !is_loopback(own))
		return 0;
	struct disguise *peer = shown_peer.sk_storage_get(ctx->sk, 0, 0);
	if (!peer || !is_loopback(&peer->actual) || is_loopback(&peer->shown) || ctx->sk->dst_port != peer->actual.port)
		return 0;
	__u64 netns = bpf_get_netns_cookie(ctx);
	return enrolled.lookup(&netns);
}

int getsockname4(struct bpf_sock_addr *ctx)
{
	struct endpoint own = read4(ctx);
	struct pod *pod = pod_to_show(ctx, &own);
	if (pod && pod->ip4)
		ctx->user_ip4 = pod->ip4;
	return ALLOW;
}

int getsockname6(struct bpf_sock_addr *ctx)
{
	struct endpoint own = read6(ctx);
	struct pod *pod = pod_to_show(ctx, &own);
	if (!pod)
		return ALLOW;
	if (is_v4(&own)) {
		if (pod->ip4)
			ctx->user_ip6[3] = pod->ip4;
		return ALLOW;
	}
	if (!(pod->ip6[0] | pod->ip6[1] | pod->ip6[2] | pod->ip6[3]))
		return ALLOW;
	ctx->user_ip6[0] = pod->ip6[0];
	ctx->user_ip6[1] = pod->ip6[1];
	ctx->user_ip6[2] = pod->ip6[2];
	ctx->user_ip6[3] = pod->ip6[3];
	return ALLOW;
}

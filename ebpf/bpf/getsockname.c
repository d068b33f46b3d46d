/* cgroup/getsockname6: a captured IPv6 socket shows its pod's address. IPv4 ones have it (connect.c). */

int getsockname6(struct bpf_sock_addr *ctx)
{
	struct endpoint own = read6(ctx);
	if (ctx->protocol != IPPROTO_TCP || own.ip[0] || own.ip[1] || own.ip[2] || own.ip[3] != bpf_htonl(1))
		return ALLOW;
	struct disguise *peer = shown_peer.sk_storage_get(ctx->sk, 0, 0);
	if (!peer || !is_loopback(&peer->actual) || is_loopback(&peer->shown))
		return ALLOW;
	__u64 netns = bpf_get_netns_cookie(ctx);
	struct pod *pod = enrolled.lookup(&netns);
	if (!pod || !(pod->ip6[0] | pod->ip6[1] | pod->ip6[2] | pod->ip6[3]))
		return ALLOW;
	ctx->user_ip6[0] = pod->ip6[0];
	ctx->user_ip6[1] = pod->ip6[1];
	ctx->user_ip6[2] = pod->ip6[2];
	ctx->user_ip6[3] = pod->ip6[3];
	return ALLOW;
}

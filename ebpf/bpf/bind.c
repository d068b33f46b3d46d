/* cgroup/bind4, bind6: ztunnel's ports in an enrolled pod are ztunnel's. By SO_REUSEPORT another process of the same user
 * could share them, and get a part of what is captured. */

static __always_inline bool is_of_ztunnel(__be16 port)
{
	return port == bpf_htons(PORT_OUTBOUND) || port == bpf_htons(PORT_INBOUND) || port == bpf_htons(PORT_HBONE) ||
	       port == bpf_htons(PORT_DNS);
}

static __always_inline int may_bind(struct bpf_sock_addr *ctx)
{
	__be16 port = ctx->user_port;
	if (!is_of_ztunnel(port))
		return ALLOW;
	__u64 netns = bpf_get_netns_cookie(ctx);
	return !enrolled.lookup(&netns) || is_exempt() ? ALLOW : REFUSE;
}

int bind4(struct bpf_sock_addr *ctx)
{
	return may_bind(ctx);
}

int bind6(struct bpf_sock_addr *ctx)
{
	return may_bind(ctx);
}

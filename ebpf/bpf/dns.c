/* cgroup/sendmsg4, sendmsg6, recvmsg4, recvmsg6: DNS over UDP goes to ztunnel's DNS proxy, and its answers come from the
 * resolver that the app asked. UDP sockets that connect() pass connect.c instead of sendmsg. */

/* Kept with the socket: an app that asks several resolvers from one socket sees all answers come from the last. */
static __always_inline bool remember_resolver(struct bpf_sock_addr *ctx, __u64 netns, const struct disguise *disguise)
{
	struct disguise *resolver = dns_resolver.sk_storage_get(ctx->sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	if (!resolver || ctx->sk->bound_dev_if)
		return false; /* bound to a device: the route is chosen, past ztunnel */
	*resolver = *disguise;
	struct endpoint shown = disguise->shown;
	struct endpoint *last = last_resolver.lookup(&netns);
	if (!last || !same_endpoint(last, &shown))
		last_resolver.update(&netns, &shown);
	return true;
}

static __always_inline bool to_resolver(struct bpf_sock_addr *ctx)
{
	return ctx->user_port == bpf_htons(PORT_DOMAIN);
}

int sendmsg4(struct bpf_sock_addr *ctx)
{
	if (!to_resolver(ctx))
		return ALLOW;
	__u64 netns = bpf_get_netns_cookie(ctx);
	if (!enrolled.lookup(&netns) || is_exempt())
		return ALLOW;
	struct endpoint dialled = read4(ctx);
	if (is_loopback(&dialled))
		return ALLOW;
	struct disguise disguise = {.actual = ztunnel_for(&dialled, PORT_DNS), .shown = dialled};
	if (!remember_resolver(ctx, netns, &disguise))
		return REFUSE;
	write4(ctx, &disguise.actual);
	return ALLOW;
}

int sendmsg6(struct bpf_sock_addr *ctx)
{
	if (!to_resolver(ctx))
		return ALLOW;
	__u64 netns = bpf_get_netns_cookie(ctx);
	if (!enrolled.lookup(&netns) || is_exempt())
		return ALLOW;
	struct endpoint dialled = read6(ctx);
	if (is_loopback(&dialled))
		return ALLOW;
	struct disguise disguise = {.actual = ztunnel_for(&dialled, PORT_DNS), .shown = dialled};
	if (!remember_resolver(ctx, netns, &disguise))
		return REFUSE;
	write6(ctx, &disguise.actual);
	return ALLOW;
}

/* The socket that sent a query to the proxy, or NULL if it is gone already. The caller releases it. */
static __always_inline struct bpf_sock *sender(struct bpf_sock_addr *ctx, const struct endpoint *source)
{
	struct bpf_sock_tuple tuple = {};
	struct endpoint proxy = ztunnel_for(source, PORT_DNS);
	if (is_v4(source)) {
		tuple.ipv4.saddr = proxy.ip[3];
		tuple.ipv4.sport = proxy.port;
		tuple.ipv4.daddr = source->ip[3];
		tuple.ipv4.dport = source->port;
		return bpf_sk_lookup_udp(ctx, &tuple, sizeof(tuple.ipv4), BPF_F_CURRENT_NETNS, 0);
	}
	__builtin_memcpy(tuple.ipv6.saddr, proxy.ip, sizeof(proxy.ip));
	__builtin_memcpy(tuple.ipv6.daddr, source->ip, sizeof(source->ip));
	tuple.ipv6.sport = proxy.port;
	tuple.ipv6.dport = source->port;
	return bpf_sk_lookup_udp(ctx, &tuple, sizeof(tuple.ipv6), BPF_F_CURRENT_NETNS, 0);
}

/* The proxy takes a query: publish which resolver its sender meant. A sender's port is not known when it connects, so
 * this cannot be done there. */
static __always_inline void publish_resolver(struct bpf_sock_addr *ctx, const struct endpoint *source)
{
	struct bpf_sock *app = sender(ctx, source);
	if (!app)
		return;
	struct disguise *resolver = dns_resolver.sk_storage_get(app, 0, 0);
	if (resolver) {
		struct dns_client client = {.netns = bpf_get_netns_cookie(ctx), .source = *source};
		struct endpoint meant = resolver->shown;
		dns_clients.update(&client, &meant);
	}
	bpf_sk_release(app);
}

/* The endpoint to show as the source of a datagram, or NULL for the real one. */
static __always_inline const struct endpoint *shown_source(struct bpf_sock_addr *ctx, const struct endpoint *source)
{
	if (ctx->sk->src_port == PORT_DNS && is_exempt()) {
		publish_resolver(ctx, source);
		return 0;
	}
	if (source->port != bpf_htons(PORT_DNS))
		return 0;
	struct disguise *resolver = dns_resolver.sk_storage_get(ctx->sk, 0, 0);
	return resolver && same_endpoint(&resolver->actual, source) ? &resolver->shown : 0;
}

int recvmsg4(struct bpf_sock_addr *ctx)
{
	struct endpoint source = read4(ctx);
	const struct endpoint *shown = shown_source(ctx, &source);
	if (shown)
		write4(ctx, shown);
	return ALLOW;
}

int recvmsg6(struct bpf_sock_addr *ctx)
{
	struct endpoint source = read6(ctx);
	const struct endpoint *shown = shown_source(ctx, &source);
	if (shown)
		write6(ctx, shown);
	return ALLOW;
}

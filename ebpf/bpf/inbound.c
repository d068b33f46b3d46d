/* sk_lookup: new connections that reach an enrolled pod from outside go to ztunnel's listener, whatever their port.
 * Sockets are not namespaced by the map: the key is the pod's address. */

#define IFINDEX_LOOPBACK 1 /* in every network namespace */

/* The pod itself, or ztunnel delivering to it. A connection to the pod's own address shows the interface of that address,
 * though it runs over loopback; what tells it is that it comes from the very same address. A packet from the wire that
 * claims so cannot finish a handshake: the answer to it does not leave the pod. */
static __always_inline bool is_from_inside(struct bpf_sk_lookup *ctx)
{
	__be32 local4 = ctx->local_ip4, remote4 = ctx->remote_ip4;
	SETTLE(local4);
	SETTLE(remote4);
	if (ctx->ingress_ifindex == IFINDEX_LOOPBACK)
		return true;
	if (ctx->family == AF_INET)
		return local4 == remote4;
	return ctx->local_ip6[0] == ctx->remote_ip6[0] && ctx->local_ip6[1] == ctx->remote_ip6[1] &&
	       ctx->local_ip6[2] == ctx->remote_ip6[2] && ctx->local_ip6[3] == ctx->remote_ip6[3];
}

static __always_inline void local_side(struct bpf_sk_lookup *ctx, __be32 *ip)
{
	__be32 v4 = ctx->local_ip4;
	SETTLE(v4);
	if (ctx->family == AF_INET) {
		ip[2] = V4_PREFIX;
		ip[3] = v4;
	} else {
		ip[0] = ctx->local_ip6[0];
		ip[1] = ctx->local_ip6[1];
		ip[2] = ctx->local_ip6[2];
		ip[3] = ctx->local_ip6[3];
	}
}

static __always_inline void remote_side(struct bpf_sk_lookup *ctx, __be32 *ip)
{
	__be32 v4 = ctx->remote_ip4;
	SETTLE(v4);
	if (ctx->family == AF_INET) {
		ip[2] = V4_PREFIX;
		ip[3] = v4;
	} else {
		ip[0] = ctx->remote_ip6[0];
		ip[1] = ctx->remote_ip6[1];
		ip[2] = ctx->remote_ip6[2];
		ip[3] = ctx->remote_ip6[3];
	}
}

/* A connection that a process of the node has dialled (node.c), and that is still its own. */
static __always_inline bool is_from_node(struct bpf_sk_lookup *ctx)
{
	struct flow flow = {};
	remote_side(ctx, flow.connector.ip);
	local_side(ctx, flow.acceptor.ip);
	flow.connector.port = ctx->remote_port;
	flow.acceptor.port = bpf_htons(ctx->local_port);
	return node_flows.lookup(&flow) != 0;
}

int inbound(struct bpf_sk_lookup *ctx)
{
	if (ctx->protocol != IPPROTO_TCP || ctx->local_port == PORT_HBONE || is_from_inside(ctx) || is_from_node(ctx))
		return SK_PASS;
	struct local_address address = {};
	local_side(ctx, address.ip);
	struct bpf_sock *listener = (struct bpf_sock *)listeners.lookup(&address);
	if (!listener)
		return SK_DROP; /* no ztunnel: refused, never passed by */
	/* This very socket: a process of the pod may listen beside it, on the same port with SO_REUSEPORT. */
	long failed = bpf_sk_assign((void *)ctx, listener, BPF_SK_LOOKUP_F_NO_REUSEPORT);
	bpf_sk_release(listener);
	return failed ? SK_DROP : SK_PASS;
}

/* sk_lookup: new connections that reach an enrolled pod from outside go to ztunnel's listener, whatever their port.
 * Sockets are not namespaced by the map: the key is the pod's address. */

#define IFINDEX_LOOPBACK 1 /* in every network namespace: the pod itself, and ztunnel delivering to it */

int inbound(struct bpf_sk_lookup *ctx)
{
	if (ctx->protocol != IPPROTO_TCP || ctx->ingress_ifindex == IFINDEX_LOOPBACK || ctx->local_port == PORT_HBONE)
		return SK_PASS;
	struct local_address address = {};
	__be32 v4 = ctx->local_ip4;
	SETTLE(v4);
	if (ctx->family == AF_INET) {
		address.ip[2] = V4_PREFIX;
		address.ip[3] = v4;
	} else {
		address.ip[0] = ctx->local_ip6[0];
		address.ip[1] = ctx->local_ip6[1];
		address.ip[2] = ctx->local_ip6[2];
		address.ip[3] = ctx->local_ip6[3];
	}
	struct bpf_sock *listener = (struct bpf_sock *)listeners.lookup(&address);
	if (!listener)
		return SK_DROP; /* no ztunnel: refused, never passed by */
	long failed = bpf_sk_assign((void *)ctx, listener, 0);
	bpf_sk_release(listener);
	return failed ? SK_DROP : SK_PASS;
}

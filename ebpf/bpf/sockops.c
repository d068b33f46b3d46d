/* sockops: both ends of a connection inside a pod meet by their flow. The connector publishes what the acceptor must
 * know before its SYN leaves; the acceptor's socket takes it when the handshake ends. */

static __always_inline struct endpoint local_end(struct bpf_sock_ops *ops)
{
	struct endpoint end = {.port = bpf_htons(ops->local_port)};
	__be32 v4 = ops->local_ip4;
	SETTLE(v4);
	if (ops->family == AF_INET) {
		end.ip[2] = V4_PREFIX;
		end.ip[3] = v4;
	} else {
		end.ip[0] = ops->local_ip6[0];
		end.ip[1] = ops->local_ip6[1];
		end.ip[2] = ops->local_ip6[2];
		end.ip[3] = ops->local_ip6[3];
	}
	return end;
}

static __always_inline struct endpoint remote_end(struct bpf_sock_ops *ops)
{
	struct endpoint end = {.port = bpf_htons(bpf_ntohl(ops->remote_port))};
	__be32 v4 = ops->remote_ip4;
	SETTLE(v4);
	if (ops->family == AF_INET) {
		end.ip[2] = V4_PREFIX;
		end.ip[3] = v4;
	} else {
		end.ip[0] = ops->remote_ip6[0];
		end.ip[1] = ops->remote_ip6[1];
		end.ip[2] = ops->remote_ip6[2];
		end.ip[3] = ops->remote_ip6[3];
	}
	return end;
}

static __always_inline void publish(struct bpf_sock_ops *ops)
{
	struct bpf_sock *sk = ops->sk;
	if (!sk)
		return;
	struct flow flow = {.connector = local_end(ops), .acceptor = remote_end(ops)};
	struct endpoint *told = presented.sk_storage_get(sk, 0, 0);
	if (!told) {
		struct disguise *peer = shown_peer.sk_storage_get(sk, 0, 0);
		if (!peer || !same_endpoint(&peer->actual, &flow.acceptor))
			return;
		told = &peer->shown;
	}
	struct endpoint copy = *told;
	flow.netns = bpf_get_netns_cookie(ops);
	if (in_flight.update(&flow, &copy))
		return; /* no room after all: ztunnel refuses a connection that it knows nothing about */
	bpf_sock_ops_cb_flags_set(ops, ops->bpf_sock_ops_cb_flags | BPF_SOCK_OPS_STATE_CB_FLAG);
}

static __always_inline bool is_captured(const struct flow *flow)
{
	__be16 port = flow->acceptor.port;
	return (port == bpf_htons(PORT_OUTBOUND) || port == bpf_htons(PORT_DNS)) && is_loopback(&flow->acceptor);
}

static __always_inline void take(struct bpf_sock_ops *ops)
{
	struct flow flow = {.connector = remote_end(ops), .acceptor = local_end(ops)};
	bool captured = is_captured(&flow);
	if (!captured && !same_ip(&flow.connector, &flow.acceptor))
		return; /* from another host; ztunnel reaches an app from the app's own address */
	struct bpf_sock *sk = ops->sk;
	if (!sk)
		return;
	flow.netns = bpf_get_netns_cookie(ops);
	struct endpoint *told = in_flight.lookup(&flow);
	if (!told)
		return;
	if (captured) {
		struct endpoint *original = original_dst.sk_storage_get(sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
		if (original)
			*original = *told;
	} else {
		struct disguise *peer = shown_peer.sk_storage_get(sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
		if (peer) {
			peer->actual = flow.connector;
			peer->shown = *told;
		}
	}
	in_flight.delete(&flow);
}

/* A connector that dies before its handshake ended. Once the peer has acknowledged our FIN it has taken the entry, and
 * the flow may be somebody else's by now. */
static __always_inline void withdraw(struct bpf_sock_ops *ops)
{
	if (ops->args[1] != BPF_TCP_CLOSE || ops->args[0] == BPF_TCP_FIN_WAIT2 || ops->args[0] == BPF_TCP_CLOSING)
		return;
	struct flow flow = {.connector = local_end(ops), .acceptor = remote_end(ops)};
	flow.netns = bpf_get_netns_cookie(ops);
	in_flight.delete(&flow);
}

int sockops(struct bpf_sock_ops *ops)
{
	if (ops->op == BPF_SOCK_OPS_TCP_CONNECT_CB)
		publish(ops);
	else if (ops->op == BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB)
		take(ops);
	else if (ops->op == BPF_SOCK_OPS_STATE_CB)
		withdraw(ops);
	return 1;
}

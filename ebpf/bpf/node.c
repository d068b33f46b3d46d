/* sockops, attached above the node's own processes: what they dial at the address of a captured pod of this node (the
 * kubelet's probes) goes to the app itself. An address alone could not tell: a Service's traffic from outside may come
 * from the node's address too, when it is masqueraded. A socket of the node's network namespace can. */

static __always_inline bool is_of_node(struct bpf_sock_ops *ops)
{
	__u32 only = 0;
	__u64 *netns = node_netns.lookup(&only);
	return netns && *netns && *netns == bpf_get_netns_cookie(ops);
}

static __always_inline struct flow node_flow(struct bpf_sock_ops *ops)
{
	struct flow flow = {.connector = local_end(ops), .acceptor = remote_end(ops)};
	return flow;
}

static __always_inline void announce(struct bpf_sock_ops *ops)
{
	struct flow flow = node_flow(ops);
	struct local_address pod = {};
	__u32 present = 1;
	__builtin_memcpy(pod.ip, flow.acceptor.ip, sizeof(pod.ip));
	if (!pods_by_address.lookup(&pod) || node_flows.update(&flow, &present))
		return;
	bpf_sock_ops_cb_flags_set(ops, ops->bpf_sock_ops_cb_flags | BPF_SOCK_OPS_STATE_CB_FLAG);
}

/* Kept until the socket is closed: so long nobody else's connection can have its addresses and ports. */
int node_sockops(struct bpf_sock_ops *ops)
{
	if (ops->op != BPF_SOCK_OPS_TCP_CONNECT_CB && ops->op != BPF_SOCK_OPS_STATE_CB)
		return 1;
	if (!is_of_node(ops))
		return 1;
	if (ops->op == BPF_SOCK_OPS_TCP_CONNECT_CB) {
		announce(ops);
	} else if (ops->args[1] == BPF_TCP_CLOSE) {
		struct flow flow = node_flow(ops);
		node_flows.delete(&flow);
	}
	return 1;
}

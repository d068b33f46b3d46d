/* What the hooks share: endpoints in and out of the contexts, and who is exempt. */

#define ALLOW 1
#define REFUSE 0 /* connect() and sendmsg() fail with EPERM */

#define V4_PREFIX bpf_htonl(0xffff)

static __always_inline bool is_v4(const struct endpoint *end)
{
	return end->ip[0] == 0 && end->ip[1] == 0 && end->ip[2] == V4_PREFIX;
}

static __always_inline bool same_ip(const struct endpoint *one, const struct endpoint *other)
{
	return one->ip[0] == other->ip[0] && one->ip[1] == other->ip[1] && one->ip[2] == other->ip[2] &&
	       one->ip[3] == other->ip[3];
}

static __always_inline bool same_endpoint(const struct endpoint *one, const struct endpoint *other)
{
	return one->port == other->port && same_ip(one, other);
}

/* Keeps a value read from a context where it was read. The compiler likes to merge two reads into one through a computed
 * pointer, and the verifier allows none into a context. */
#define SETTLE(value) asm volatile("" : "+r"(value))

/* The unspecified address counts: connecting to it reaches this host. */
static __always_inline bool is_loopback(const struct endpoint *end)
{
	if (is_v4(end))
		return end->ip[3] == 0 || (end->ip[3] & bpf_htonl(0xff000000)) == bpf_htonl(0x7f000000);
	return end->ip[0] == 0 && end->ip[1] == 0 && end->ip[2] == 0 && (end->ip[3] & ~bpf_htonl(1)) == 0;
}

/* The loopback address of the same family, on which ztunnel listens. */
static __always_inline struct endpoint ztunnel_for(const struct endpoint *dialled, __u16 port)
{
	struct endpoint listener = {};
	if (is_v4(dialled)) {
		listener.ip[2] = V4_PREFIX;
		listener.ip[3] = bpf_htonl(0x7f000001);
	} else {
		listener.ip[3] = bpf_htonl(1);
	}
	listener.port = bpf_htons(port);
	return listener;
}

static __always_inline struct endpoint read4(struct bpf_sock_addr *ctx)
{
	struct endpoint end = {.ip = {0, 0, V4_PREFIX, ctx->user_ip4}, .port = ctx->user_port};
	return end;
}

static __always_inline struct endpoint read6(struct bpf_sock_addr *ctx)
{
	struct endpoint end = {.port = ctx->user_port};
	end.ip[0] = ctx->user_ip6[0];
	end.ip[1] = ctx->user_ip6[1];
	end.ip[2] = ctx->user_ip6[2];
	end.ip[3] = ctx->user_ip6[3];
	return end;
}

static __always_inline void write4(struct bpf_sock_addr *ctx, const struct endpoint *end)
{
	ctx->user_ip4 = end->ip[3];
	ctx->user_port = end->port;
}

static __always_inline void write6(struct bpf_sock_addr *ctx, const struct endpoint *end)
{
	ctx->user_ip6[0] = end->ip[0];
	ctx->user_ip6[1] = end->ip[1];
	ctx->user_ip6[2] = end->ip[2];
	ctx->user_ip6[3] = end->ip[3];
	ctx->user_port = end->port;
}

/* ztunnel itself: its own dials must not come back to it. */
static __always_inline bool is_exempt(void)
{
	__u64 cgroup = bpf_get_current_cgroup_id();
	return exempt_cgroups.lookup(&cgroup) != 0;
}

"""Which program goes where, in the order of attaching: what undoes a rewrite comes before what makes it."""

from __future__ import annotations

from dataclasses import dataclass

# enum bpf_prog_type
SOCK_OPS, CGROUP_SOCK_ADDR, SK_LOOKUP = 13, 18, 30


@dataclass(frozen=True, slots=True)
class Hook:
    """A program of bpf/, by its C function, and the kernel's numbers for its place (enum bpf_attach_type)."""

    name: str
    program_type: int
    attach_type: int
    since: str  # the kernel that brought the place

    @property
    def expected_attach_type(self) -> int:
        """As BPF_PROG_LOAD wants it: sockops programs must not name theirs."""
        return 0 if self.program_type == SOCK_OPS else self.attach_type


CGROUP_HOOKS = (
    Hook("sockops", SOCK_OPS, 3, "4.13"),
    Hook("getpeername4", CGROUP_SOCK_ADDR, 29, "5.8"),
    Hook("getpeername6", CGROUP_SOCK_ADDR, 30, "5.8"),
    Hook("getsockname4", CGROUP_SOCK_ADDR, 31, "5.8"),
    Hook("getsockname6", CGROUP_SOCK_ADDR, 32, "5.8"),
    Hook("recvmsg4", CGROUP_SOCK_ADDR, 19, "5.2"),
    Hook("recvmsg6", CGROUP_SOCK_ADDR, 20, "5.2"),
    Hook("sendmsg4", CGROUP_SOCK_ADDR, 14, "4.18"),
    Hook("sendmsg6", CGROUP_SOCK_ADDR, 15, "4.18"),
    Hook("bind4", CGROUP_SOCK_ADDR, 8, "4.17"),
    Hook("bind6", CGROUP_SOCK_ADDR, 9, "4.17"),
    Hook("connect4", CGROUP_SOCK_ADDR, 10, "4.17"),
    Hook("connect6", CGROUP_SOCK_ADDR, 11, "4.17"),
)
INBOUND = Hook("inbound", SK_LOOKUP, 36, "5.9")  # attached by the node, to each pod's network namespace
NODE = Hook("node_sockops", SOCK_OPS, 3, "4.13")  # attached above the node's own processes, where there are such
HOOKS = (*CGROUP_HOOKS, NODE, INBOUND)

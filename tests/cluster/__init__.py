"""A real Kubernetes of several nodes on one machine, for tests and development; `python -m tests.cluster --help`.

Every node is a set of namespaces of its own (mount, network, process, cgroup, host name), so that it has the paths of a
real host: /etc/cni/net.d, /opt/cni/bin, /run/netns, /sys/fs/bpf and /sys/fs/cgroup are the node's, not the machine's.
"""

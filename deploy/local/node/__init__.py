"""The node process of local mode: kubelet, node agent, DNS and Service addresses of one node."""

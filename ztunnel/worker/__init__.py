"""The worker: one process, one thread, one edge-triggered epoll loop that carries bytes.

A connection's way through the files: `listeners` accepts it; `outbound`, `inbound` or `plaintext` ask the decisions
(`ztunnel.plan`, `mesh.policy`) what shall happen; `relay` carries it as it is, or `pool`, `tunnel` and `stream` carry
it as one HTTP/2 stream among many of a TLS connection.
"""

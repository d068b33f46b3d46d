"""The waypoint's own HTTP ports: admin (loopback), metrics, readiness. Served by its own HTTP/1."""

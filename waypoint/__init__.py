"""The waypoint: an HTTP proxy between ztunnels that routes requests and evaluates L7 policy."""

"""`ambit waypoint`: makes waypoints, shows how they fare, removes them. The words are istioctl's."""

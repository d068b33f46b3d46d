"""What the mesh says about a connection at this waypoint, decided without IO."""

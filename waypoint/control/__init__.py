"""The waypoint's own conversation with the control plane: configuration by delta xDS, certificates from the CA."""

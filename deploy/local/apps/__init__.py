"""The images that local mode has built in."""

"""`make demo`: the story of a label, told on a two-node mesh of this machine and proved on the wire."""

"""A mesh under half of its load for some time: what it holds must not grow, and must be gone afterwards."""

"""Connections that arrive: what they are meant for, what they speak, who serves them."""

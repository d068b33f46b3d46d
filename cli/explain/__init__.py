"""`ambit explain`: what becomes of a connection or request, decided by the functions that decide on the wire."""

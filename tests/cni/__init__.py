"""The CNI plugin and its installer."""

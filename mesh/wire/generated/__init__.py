"""Protobuf messages compiled from mesh/wire/*.proto; never edited by hand."""

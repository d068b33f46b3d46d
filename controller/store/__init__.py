"""The objects that describe the mesh: where they are kept, what they must look like."""

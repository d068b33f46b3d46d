"""A request on its way: from the client's connection through policy and routes to an endpoint, and its answer back."""

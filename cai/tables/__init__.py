"""One step of a discrete program as arrays, and the recursions on them."""

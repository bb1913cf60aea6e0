"""Training of guides: the loop, its progress, and its file."""

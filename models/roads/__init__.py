"""Road networks from graphs, files and columns, and a generator of cities."""

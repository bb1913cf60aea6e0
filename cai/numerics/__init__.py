"""Arrays, memory, threads and number types, independent of control problems."""

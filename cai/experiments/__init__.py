"""Sweeps: methods on a grid of models with several seeds, in a file that survives a kill."""

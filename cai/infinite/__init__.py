"""Infinite horizons: termination, fixed points, and their certificates."""

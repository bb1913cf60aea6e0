"""Infinite horizons: where they terminate, fixed points, and their certificates."""

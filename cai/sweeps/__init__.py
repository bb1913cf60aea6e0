"""Finite horizons of a table by matrix products: backward, forward, and sums on the way."""

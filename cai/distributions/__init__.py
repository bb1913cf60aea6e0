"""Exact scores, supports, and distributions that Pyro does not have."""

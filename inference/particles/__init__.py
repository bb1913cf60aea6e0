"""Importance sampling, sequential Monte Carlo, and their diagnostics."""

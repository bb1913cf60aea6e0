"""Optimism as a parameter: its curve, robustness, and Rényi bounds."""

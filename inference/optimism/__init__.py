"""The optimism dial: its curve, robustness, and Rényi bounds."""

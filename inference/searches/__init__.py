"""Optimisers that can be interrupted and gone on with: L-BFGS, Adam with early stopping, l1."""

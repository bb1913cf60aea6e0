"""Rewards with weights, as functions and as arrays."""

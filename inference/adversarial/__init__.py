"""Rewards and policies by telling demonstrations from rollouts."""

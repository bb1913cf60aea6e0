"""Trajectories that somebody else produced."""

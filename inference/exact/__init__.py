"""Exact inference over finite horizons."""

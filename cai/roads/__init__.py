"""Road networks without a goal: segments, turns, their features and their geometry."""

"""What somebody wants, from the beginning of a trajectory."""

"""Rewards under which demonstrations are the best by a margin."""

"""A maximum by Fisher scoring, and what the data tell and leave open there."""

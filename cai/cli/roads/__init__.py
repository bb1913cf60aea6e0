"""The commands on road networks."""

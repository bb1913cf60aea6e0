"""The likelihood of trips on road networks."""

"""The trajectory as a Pyro program: its contract, its sites, and how a policy acts in it."""

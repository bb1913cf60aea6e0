"""Demonstrators with weights of their own, drawn from a population."""

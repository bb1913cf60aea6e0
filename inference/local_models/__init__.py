"""Rewards learnt from local models of the return around continuous actions."""

"""Rewards learnt by other methods than likelihood: margins, moments, samples, local models."""

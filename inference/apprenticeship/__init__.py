"""Rewards learnt by other methods than likelihood: moments, samples; what these share."""

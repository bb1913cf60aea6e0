"""Values, bounds and likelihoods that torch differentiates."""

"""Estimators of the gradient of the evidence lower bound."""

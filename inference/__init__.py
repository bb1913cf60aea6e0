"""Verbs: functions from a model to a named result."""

from cai.inference.posterior import posterior
from cai.inference.soft_values import soft_values

__all__ = ["posterior", "soft_values"]

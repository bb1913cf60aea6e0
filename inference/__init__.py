"""Verbs: functions from a model to a named result."""

from cai.inference.enumeration import Enumeration, enumeration
from cai.inference.posterior import posterior
from cai.inference.soft_values import soft_values
from cai.inference.variational import Fit, fit

__all__ = ["Enumeration", "Fit", "enumeration", "fit", "posterior", "soft_values"]

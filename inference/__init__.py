"""Verbs: functions from a model to a named result."""

from cai.inference.average import AverageReward, average_reward
from cai.inference.composition import compose
from cai.inference.curvature import reward_hessian_vector_product
from cai.inference.differentiable import bound, log_likelihood, values
from cai.inference.enumeration import Enumeration, enumeration
from cai.inference.gaussian import optimism_range
from cai.inference.posterior import posterior
from cai.inference.soft_values import soft_values
from cai.inference.variational import Fit, fit
from cai.inference.z_learning import ZLearning, z_learning

__all__ = [
    "AverageReward",
    "Enumeration",
    "Fit",
    "ZLearning",
    "average_reward",
    "bound",
    "compose",
    "enumeration",
    "fit",
    "log_likelihood",
    "optimism_range",
    "posterior",
    "reward_hessian_vector_product",
    "soft_values",
    "values",
    "z_learning",
]

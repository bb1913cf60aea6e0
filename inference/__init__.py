"""Verbs: functions from a model to a named result."""

from cai.inference.derivatives.curvature import reward_hessian_vector_product
from cai.inference.derivatives.differentiable import bound, log_likelihood, values
from cai.inference.exact.compose import compose
from cai.inference.exact.enumeration import Enumeration, enumeration
from cai.inference.exact.gaussian_values import optimism_range, stabilising_values
from cai.inference.exact.map_trajectory import MapTrajectory, map_trajectory
from cai.inference.exact.posterior import posterior
from cai.inference.exact.soft_values import soft_values
from cai.inference.fitting._not_finite import FitStopped
from cai.inference.fitting.fit import Fit, fit
from cai.inference.fitting.rollout_elbo import RolloutELBO
from cai.inference.gradients.critic import critic_gradient
from cai.inference.infinite.average_reward import AverageReward, average_reward
from cai.inference.infinite.count_moves import MoveCounts, count_moves
from cai.inference.infinite.goal_values import GoalValues, goal_values
from cai.inference.infinite.linear_system import LinearValues, linear_system, linear_values
from cai.inference.learning.z_learning import ZLearning, z_learning
from cai.inference.optimism.optimism_curve import Change, OptimismCurve, optimism_curve
from cai.inference.optimism.renyi import (
    RenyiBound,
    effective_sample_ceiling,
    renyi_bound,
    renyi_elbo,
)
from cai.inference.optimism.robust import Robust, robust
from cai.inference.particles.evidence_bracket import evidence_bracket
from cai.inference.particles.importance import ImportanceSample, importance
from cai.inference.particles.pareto import pareto_k, pareto_threshold
from cai.inference.particles.smc import ParticlePosterior, smc
from cai.inference.planning.belief_values import BeliefSolution, belief_values
from cai.inference.planning.factorised_plan import FactorisedPlan, factorised_plan
from cai.inference.planning.gaussian_plan import GaussianPlans, gaussian_plan
from cai.inference.planning.price_ladder import PriceLadder, price_ladder
from cai.inference.planning.sample_plans import PlanSamples, sample_plans

__all__ = [
    "AverageReward",
    "BeliefSolution",
    "Change",
    "Enumeration",
    "FactorisedPlan",
    "Fit",
    "FitStopped",
    "GaussianPlans",
    "GoalValues",
    "ImportanceSample",
    "LinearValues",
    "MapTrajectory",
    "MoveCounts",
    "OptimismCurve",
    "ParticlePosterior",
    "PlanSamples",
    "PriceLadder",
    "RenyiBound",
    "Robust",
    "RolloutELBO",
    "ZLearning",
    "average_reward",
    "belief_values",
    "bound",
    "compose",
    "count_moves",
    "critic_gradient",
    "effective_sample_ceiling",
    "enumeration",
    "evidence_bracket",
    "factorised_plan",
    "fit",
    "gaussian_plan",
    "goal_values",
    "importance",
    "linear_system",
    "linear_values",
    "log_likelihood",
    "map_trajectory",
    "optimism_curve",
    "optimism_range",
    "pareto_k",
    "pareto_threshold",
    "posterior",
    "price_ladder",
    "renyi_bound",
    "renyi_elbo",
    "reward_hessian_vector_product",
    "robust",
    "sample_plans",
    "smc",
    "soft_values",
    "stabilising_values",
    "values",
    "z_learning",
]

"""Verbs: functions from a model to a named result."""

from cai.inference.average import AverageReward, average_reward
from cai.inference.belief_values import BeliefSolution, belief_values
from cai.inference.bracket import evidence_bracket
from cai.inference.composition import compose
from cai.inference.critic import critic_gradient
from cai.inference.curvature import reward_hessian_vector_product
from cai.inference.dial import Change, OptimismCurve, optimism_curve
from cai.inference.differentiable import bound, log_likelihood, values
from cai.inference.enumeration import Enumeration, enumeration
from cai.inference.factorised_plan import FactorisedPlan, factorised_plan
from cai.inference.gaussian import optimism_range, stabilising_values
from cai.inference.gaussian_plan import GaussianPlans, gaussian_plan
from cai.inference.goals import GoalValues, goal_values
from cai.inference.importance import ImportanceSample, importance
from cai.inference.linear_system import LinearValues, linear_system, linear_values
from cai.inference.map_trajectory import MapTrajectory, map_trajectory
from cai.inference.not_finite import FitStopped
from cai.inference.pareto import pareto_k, pareto_threshold
from cai.inference.paths import MoveCounts, count_moves
from cai.inference.plan_sampling import PlanSamples, sample_plans
from cai.inference.posterior import posterior
from cai.inference.price_ladder import PriceLadder, price_ladder
from cai.inference.renyi import RenyiBound, effective_sample_ceiling, renyi_bound, renyi_elbo
from cai.inference.robust import Robust, robust
from cai.inference.rollout_elbo import RolloutELBO
from cai.inference.smc import ParticlePosterior, smc
from cai.inference.soft_values import soft_values
from cai.inference.variational import Fit, fit
from cai.inference.z_learning import ZLearning, z_learning

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

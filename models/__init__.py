"""Nouns: models that are ready to use."""

from cai.models.continuous.cartpole import cartpole
from cai.models.continuous.double_integrator import double_integrator
from cai.models.continuous.linear_gaussian import linear_gaussian
from cai.models.continuous.multigoal import multigoal
from cai.models.continuous.pendulum import pendulum
from cai.models.discrete.gridworld import gridworld
from cai.models.discrete.ledge import ledge
from cai.models.discrete.linearly_solvable import linearly_solvable
from cai.models.discrete.lottery import lottery
from cai.models.discrete.road_network import road_network
from cai.models.discrete.tabular import tabular
from cai.models.environments.gym import gym, published

__all__ = [
    "cartpole",
    "double_integrator",
    "gridworld",
    "gym",
    "ledge",
    "linear_gaussian",
    "linearly_solvable",
    "lottery",
    "multigoal",
    "pendulum",
    "published",
    "road_network",
    "tabular",
]

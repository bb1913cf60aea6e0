"""Nouns: models that are ready to use."""

from cai.models.cartpole import cartpole
from cai.models.double_integrator import double_integrator
from cai.models.gridworld import gridworld
from cai.models.gym import gym, published
from cai.models.ledge import ledge
from cai.models.linear_gaussian import linear_gaussian
from cai.models.linearly_solvable import linearly_solvable
from cai.models.lottery import lottery
from cai.models.multigoal import multigoal
from cai.models.pendulum import pendulum
from cai.models.road_network import road_network
from cai.models.tabular import tabular

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

"""Control as probabilistic inference: one Pyro program of a trajectory, every inference on it."""

from cai.layout import Layout
from cai.policy import NeuralPolicy, TabularPolicy
from cai.solution import Solution
from cai.successors import Successors
from cai.table import Table, collapse, tabulate
from cai.trajectory import Trajectories, TrajectoryModel

__all__ = [
    "Layout",
    "NeuralPolicy",
    "Solution",
    "Successors",
    "Table",
    "TabularPolicy",
    "Trajectories",
    "TrajectoryModel",
    "collapse",
    "tabulate",
]

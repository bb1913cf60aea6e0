"""Control as probabilistic inference: one Pyro program of a trajectory, every inference on it."""

from cai import interruption as _interruption

_interruption.end_quietly()  # until the command itself takes over, if this process is one

from cai import installation as _installation

_installation.check(__path__[0])

from cai.bracket import EvidenceBracket
from cai.checkpoints import Checkpoints
from cai.comparison import Comparison, Row, compare
from cai.evaluate import Evaluation, evaluate
from cai.flow import FlowHead
from cai.free_dynamics import FreeDynamics
from cai.gaussian import Gaussian, LinearMap, Quadratic
from cai.gaussian_posterior import GaussianPosterior
from cai.gaussian_solution import GaussianSolution
from cai.heads import CategoricalHead, GaussianHead, MixtureHead
from cai.histories import HistoryPolicy
from cai.latent_policy import LatentPolicy
from cai.layout import Layout
from cai.linear_gaussian import FlatPrior, LinearGaussian
from cai.linear_policy import LinearGaussianPolicy
from cai.moment import Moment
from cai.plans import GaussianPlan, Plan
from cai.policy import NeuralPolicy, TabularPolicy
from cai.reactive import ReactivePolicy
from cai.recurrent import RecurrentPolicy
from cai.solution import Solution
from cai.starts import Starts
from cai.stationary import Stationary
from cai.successors import Successors
from cai.table import Table
from cai.tabulation import collapse, tabulate, tabulate_rewards
from cai.trajectory import Trajectories, TrajectoryModel

__version__ = _installation.version()

__all__ = [
    "CategoricalHead",
    "Checkpoints",
    "Comparison",
    "Evaluation",
    "EvidenceBracket",
    "FlatPrior",
    "FlowHead",
    "FreeDynamics",
    "Gaussian",
    "GaussianHead",
    "GaussianPlan",
    "GaussianPosterior",
    "GaussianSolution",
    "HistoryPolicy",
    "LatentPolicy",
    "Layout",
    "LinearGaussian",
    "LinearGaussianPolicy",
    "LinearMap",
    "MixtureHead",
    "Moment",
    "NeuralPolicy",
    "Plan",
    "Quadratic",
    "ReactivePolicy",
    "RecurrentPolicy",
    "Row",
    "Solution",
    "Starts",
    "Stationary",
    "Successors",
    "Table",
    "TabularPolicy",
    "Trajectories",
    "TrajectoryModel",
    "collapse",
    "compare",
    "evaluate",
    "tabulate",
    "tabulate_rewards",
]

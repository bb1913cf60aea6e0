"""Control as probabilistic inference: one Pyro program of a trajectory, every inference on it."""

from cai import interruption as _interruption

_interruption.end_quietly()  # until the command itself takes over, if this process is one

from cai import installation as _installation

_installation.check(__path__[0])

from cai.distributions.flat_prior import FlatPrior
from cai.distributions.starts import Starts
from cai.distributions.successors import Successors
from cai.evaluation.bracket import EvidenceBracket
from cai.evaluation.comparison import Comparison, Row, compare
from cai.evaluation.evaluate import Evaluation, evaluate
from cai.gaussian.forms import Gaussian, LinearMap, Quadratic
from cai.gaussian.gaussian_solution import GaussianSolution
from cai.gaussian.linear_gaussian import LinearGaussian
from cai.gaussian.linear_policy import LinearGaussianPolicy
from cai.policies.flow import FlowHead
from cai.policies.free_dynamics import FreeDynamics
from cai.policies.heads import CategoricalHead, GaussianHead, MixtureHead
from cai.policies.history import HistoryPolicy
from cai.policies.latent import LatentPolicy
from cai.policies.neural import NeuralPolicy, TabularPolicy
from cai.policies.plans import GaussianPlan, Plan
from cai.policies.reactive import ReactivePolicy
from cai.policies.recurrent import RecurrentPolicy
from cai.program.layout import Layout
from cai.program.trajectories import Trajectories
from cai.program.trajectory import TrajectoryModel
from cai.solutions.checkpoints import Checkpoints
from cai.solutions.moment import Moment
from cai.solutions.solution import Solution
from cai.solutions.stationary import Stationary
from cai.tables.table import Table
from cai.tables.tabulation import collapse, tabulate, tabulate_rewards

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

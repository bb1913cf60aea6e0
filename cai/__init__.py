"""Control as probabilistic inference: one Pyro program of a trajectory, every inference on it.

A name is loaded when it is first used, so that ``import cai`` takes no time.

Packages:

- ``models``: models that are ready to use.
- ``inference``: functions from a model to a named result.
- ``plot``: figures of models and results.

Models:

- ``TrajectoryModel``: p(τ, O), a trajectory and its optimality as a Pyro program.
- ``LinearGaussian``: a model that is linear, Gaussian and quadratic, with exact inference.
- ``EmpiricalStates``: p(s_0), uniform over given states.
- ``SparseCategorical``: p(s'|s,a) over a few listed states.
- ``FlatPrior``: the improper prior on actions of a linear-Gaussian model.
- ``with_prior``: a model with a policy as its action prior.
- ``with_goal``: the table of a model that ends where it first enters a state.
- ``Layout``: names and places of states and actions, for pictures and tables.
- ``Trajectories``: sampled trajectories, as tensors.
- ``Demonstrations``: observed trajectories, with how each one ends.
- ``LinearReward``: a reward with a weight for each feature.
- ``TabularReward``: a reward without features, one free number for each state and action.
- ``NeuralReward``: a reward with the parameters of torch modules.
- ``Streets``: a road network without a goal: a state for each segment, an action for each turn.

Tables:

- ``Table``: a control problem with S states and A actions, as arrays.
- ``tabulate``: the table of a model, its latents summed out.
- ``tabulate_rewards``: a table with rewards that have gradients.
- ``collapse``: the model whose dynamics are its own table.

Solutions:

- ``Solution``: values, policy and trajectories at one optimism, finite horizon.
- ``CheckpointedSolution``: the same in O(√T·S) memory.
- ``Stationary``: the same with an infinite horizon.
- ``SolutionStep``: one step of a solution.
- ``on_grid``: values of a continuous deterministic model, between the nodes of a grid.
- ``GridSolution``: its result.
- ``GaussianSolution``: the solution of a linear-Gaussian model.
- ``Gaussian``: N(mean, covariance), which may be singular.
- ``LinearMap``: linear dynamics with Gaussian noise.
- ``Quadratic``: a quadratic function of the state.

Policies:

- ``TabularPolicy``: one number for each step, state or observation, and action.
- ``NeuralPolicy``: a network of time and state.
- ``HistoryPolicy``: a table of everything observed so far.
- ``RecurrentPolicy``: a recurrent network of what is observed.
- ``LatentPolicy``: a network with a latent variable for each episode or step.
- ``LinearGaussianPolicy``: N(k - K s, C) at each step.
- ``Plan``: independent actions, whatever the state.
- ``GaussianPlan``: jointly Gaussian actions, whatever the state.
- ``DynamicsGuide``: a guide that changes the dynamics too.
- ``blind``: an ``observe`` for policies that see nothing (open loop).

Heads of networks:

- ``CategoricalHead``: over finitely many actions.
- ``GaussianHead``: a Gaussian, squashed onto a box where there is one.
- ``MixtureHead``: a mixture of Gaussians, squashed likewise.
- ``FlowHead``: a Gaussian transformed by a normalising flow.
- ``NoiseHead``: a network of noise, with any number of modes and no density.

Evaluation:

- ``evaluate``: ELBO, return, entropy and occupancies of a policy in the true dynamics.
- ``Evaluation``: its result.
- ``compare``: solutions, fits and policies side by side on one model.
- ``Comparison``: its result.
- ``Row``: one method of a comparison.
- ``EvidenceBracket``: log p(O) from below and from above.
- ``sweep``: methods on a grid of models with several seeds, in a file that survives a kill.
- ``SweepResult``: its result.
- ``SweepCell``: one method on one model of a sweep, with one seed.

Files:

- ``save``: writes a table, solution, policy, evaluation or comparison into a file.
- ``load``: the result in such a file.
"""

from cai import installation as _installation

_installation.check(__path__[0])

import logging as _logging

import lazy_loader as _lazy_loader

__getattr__, __dir__, __all__ = _lazy_loader.attach_stub(__name__, __file__)

_logging.getLogger(__name__).addHandler(_logging.NullHandler())  # silent unless asked

__version__ = _installation.version()

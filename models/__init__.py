"""Ready-made models of control problems.

Finitely many states:

- ``ledge``: five states; a safe path home, or a short one along a ledge that may give way.
- ``lottery``: two states; save, or buy a ticket that nearly never wins.
- ``gridworld``: a walk on a text map.
- ``road_network``: a walk along the edges of a graph to a goal.
- ``tabular``: a model from arrays.
- ``linearly_solvable``: passive dynamics and a cost for each state.

Road networks without a goal:

- ``streets``: the network of a networkx graph, as OSMnx makes them.
- ``streets_from_columns``: the network of columns of a mapping or a frame.
- ``streets_from_tntp``: the network of a TNTP file.
- ``city``: a generated town: a grid with arterials, one-way streets, gaps and a river.

Continuous states:

- ``pendulum``: a pendulum to swing up and hold.
- ``cartpole``: a pole on a cart, to be kept upright.
- ``multigoal``: a point on a plane with four goals.
- ``double_integrator``: a point with inertia that is to come to rest past obstacles.
- ``linear_gaussian``: a linear-Gaussian model from its matrices.

Environments:

- ``gym``: a Gymnasium environment with a published table.
- ``published``: the names of those environments.
- ``environment``: a Gymnasium environment that can only be sampled.
- ``Environment``: the result of ``environment``.
- ``as_environment``: a model as a vector environment of Gymnasium.
- ``ModelVectorEnv``: the result of ``as_environment``.
- ``ModelEnv``: one copy of a model as an environment.
- ``register``: makes models known to ``gymnasium.make``.
"""

import lazy_loader as _lazy_loader

__getattr__, __dir__, __all__ = _lazy_loader.attach_stub(__name__, __file__)

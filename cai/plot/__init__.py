"""Figures: every function but ``explore`` returns a matplotlib figure with labels and a caption.

Comparisons:

- ``comparison``: what each method imagines against what it gets.
- ``occupancy``: how often each state is visited, imagined and real.
- ``policies``: the policy of each method.

Optimism:

- ``optimism``: by how much the exact posterior overrates each state.
- ``optimism_curve``: bound, ELBO and return from the worst case to the best.
- ``explore``: a page for a browser in which optimism is a slider.
- ``price_ladder``: what each restriction of the guide costs.

Models and training:

- ``graphical_model``: the model as a graph.
- ``trajectories``: trajectories in a plane of the states.
- ``streets``: a number of each segment of a road network, on its map.
- ``destinations``: where a trip is going, as it unfolds.
- ``intent``: what somebody wants, as it is believed after each step.
- ``estimates``: weights of fitted rewards, with intervals.
- ``by_group``: weights of each of several demonstrators, and their population.
- ``reward_map``: what each cell of a map pays, as fitted rewards have it.
- ``optimism_profile``: the likelihood of each optimism of a demonstrator.
- ``losses``: the ELBO over the steps of a fit.
- ``learning_curve``: what learners record, and their values against the exact ones.
"""

import lazy_loader as _lazy_loader

__getattr__, __dir__, __all__ = _lazy_loader.attach_stub(__name__, __file__)

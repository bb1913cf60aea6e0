"""Figures: every function returns a matplotlib figure with labels, units and a caption."""

from cai.plot.comparison_figure import (
    comparison,
    graphical_model,
    losses,
    occupancy,
    optimism,
    policies,
)
from cai.plot.ladder_figure import price_ladder
from cai.plot.optimism_figures import optimism_curve
from cai.plot.trajectory_figure import trajectories

__all__ = [
    "comparison",
    "graphical_model",
    "losses",
    "occupancy",
    "optimism",
    "optimism_curve",
    "policies",
    "price_ladder",
    "trajectories",
]

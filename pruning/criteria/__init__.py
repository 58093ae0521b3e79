"""Criteria: cheap scores for every weight, `(objective, w, *, active=None, **options) -> (P,)`, higher = keep.

`REGISTRY` lists them with their family, their cost and what they need.
"""

from pruning.criteria import information, units
from pruning.criteria.at_initialisation import grasp, snip, synflow
from pruning.criteria.base import REGISTRY, Entry
from pruning.criteria.fishers import fisher, fisher_empirical, fisher_sampled, woodfisher
from pruning.criteria.gradients import movement, taylor, taylor_signed, taylor_squared
from pruning.criteria.layerwise import obs_layerwise, wanda
from pruning.criteria.magnitudes import lamp, magnitude, magnitude_scaled, random
from pruning.criteria.second_order import obd, obd_recursive, obs, obs_gradient, taylor_second
from pruning.criteria.sets import combinatorial

__all__ = [
    "REGISTRY",
    "Entry",
    "combinatorial",
    "fisher",
    "fisher_empirical",
    "fisher_sampled",
    "grasp",
    "information",
    "lamp",
    "magnitude",
    "magnitude_scaled",
    "movement",
    "obd",
    "obd_recursive",
    "obs",
    "obs_gradient",
    "obs_layerwise",
    "random",
    "snip",
    "synflow",
    "taylor",
    "taylor_second",
    "taylor_signed",
    "taylor_squared",
    "units",
    "wanda",
    "woodfisher",
]

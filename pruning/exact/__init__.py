"""The truth: exact saliencies, by definition (`reference`) and fast (`saliency`), independent of every criterion."""

from pruning.exact.frontiers import Frontier, frontier
from pruning.exact.naive import reference
from pruning.exact.structured import routes, saliency, weighted_saliencies
from pruning.exact.subsets import BestSubset, best_subsets, losses, pairs

__all__ = [
    "BestSubset",
    "Frontier",
    "best_subsets",
    "frontier",
    "losses",
    "pairs",
    "reference",
    "routes",
    "saliency",
    "weighted_saliencies",
]

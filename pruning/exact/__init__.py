"""The truth: exact saliencies, by definition (`reference`) and fast (`saliency`), independent of every criterion."""

from pruning.exact.expansion import TaylorTerms, taylor_terms
from pruning.exact.frontiers import Frontier, frontier
from pruning.exact.halves import Halves, split_half
from pruning.exact.naive import reference
from pruning.exact.reoptimization import Reoptimized, reoptimized
from pruning.exact.rows import RowOptimum, row_optimum
from pruning.exact.structured import routes, saliency, weighted_saliencies
from pruning.exact.subsets import BestSubset, best_subsets, losses, pairs

__all__ = [
    "BestSubset",
    "Frontier",
    "Halves",
    "Reoptimized",
    "RowOptimum",
    "TaylorTerms",
    "best_subsets",
    "frontier",
    "losses",
    "pairs",
    "reference",
    "reoptimized",
    "routes",
    "row_optimum",
    "saliency",
    "split_half",
    "taylor_terms",
    "weighted_saliencies",
]

"""The truth: exact saliencies, by definition (`reference`) and fast (`saliency`), independent of every criterion."""

from pruning.exact.naive import reference
from pruning.exact.structured import routes, saliency, weighted_saliencies

__all__ = ["reference", "routes", "saliency", "weighted_saliencies"]

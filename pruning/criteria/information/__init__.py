"""Mutual information, posed so that it has an answer: `discrete`, `noisy` by quadrature; `estimators` beside them."""

from pruning.criteria.information import discrete, estimators, noisy

__all__ = ["discrete", "estimators", "noisy"]

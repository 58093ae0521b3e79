"""Neural-network pruning beside the truth: exact saliency, criteria, masks, and how far apart they are.

Beyond the letters of minimal_nn:

    s_j         saliency of weight j, L((1 − e_j) ∘ w) − L(w): positive where removal hurts
    scores      one number for each weight (P,), higher = keep
    mask        (P,) bool, True = kept
    p           sparsity, the fraction of candidates removed; density is 1 − p
"""

from pruning import compare, criteria, exact, masks, oracle, updates

__all__ = ["compare", "criteria", "exact", "masks", "oracle", "updates"]

"""Groups of parameters that are removed together."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from minimal_nn import checks
from minimal_nn.objective import Objective


@dataclass(frozen=True)
class Groups:
    """A partition of some of the parameters: ids (P,), −1 for those in no group, and the members of each group."""

    ids: np.ndarray
    members: list[np.ndarray]

    @classmethod
    def of(cls, L: Objective, ids: np.ndarray) -> Groups:
        """Check ids (P,) int >= −1; a number between 0 and the largest that nobody bears is an empty group."""
        ids = checks.array("groups", ids, (L.n_parameters,), kinds="iu").astype(np.intp)
        if (ids.size and ids.min() < -1) or ids.max(initial=-1) < 0:
            raise ValueError(f"groups: expected ids >= 0, or −1 for none, at least one of them >= 0, got {ids.min()}")
        if ids.max() >= L.n_parameters:
            raise ValueError(f"groups: expected ids below the {L.n_parameters} parameters, got {ids.max()}")
        order = np.argsort(ids, kind="stable")
        edges = np.searchsorted(ids[order], np.arange(ids.max() + 2))
        return cls(ids, [order[a:b] for a, b in itertools.pairwise(edges)])

    def total(self, values: np.ndarray) -> np.ndarray:
        """Return the sum of values (P,) over each group (G,)."""
        some = self.ids >= 0
        return np.bincount(self.ids[some], values[some], len(self.members)).astype(values.dtype)

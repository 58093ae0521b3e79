"""Peak memory of a dense Hessian with P near 10,000, and of an exact saliency, each in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

WIDTHS, EXAMPLES = (64, 100, 31, 10), 100  # P = 9951
KINDS = "hessian", "saliency"


@dataclass(frozen=True)
class Peak:
    """Bytes that the process took at most, beyond what it took before, those of the result, and those allowed."""

    what: str
    p: int
    peak: int
    size: int
    allowed: float

    @property
    def ratio(self) -> float:
        """peak/size."""
        return self.peak / self.size

    @property
    def reached(self) -> bool:
        """Whether the peak stayed within what is allowed.

        The result itself is new, up to what was held before and is free again; less would be a wrong measurement.
        """
        return 0.95 * self.size <= self.peak <= self.allowed


def measure(kind: str) -> Peak:
    """Run this module in a fresh interpreter, whose peak nothing else has raised, nor reading a data set."""
    command = [sys.executable, "-m", "tests.benchmarks.memory", kind]
    environment = {name: value for name, value in os.environ.items() if name != "MINIMAL_NN_DATA"}
    child = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return Peak(**json.loads(child.stdout))


def _peak_bytes() -> int:
    """Return the most memory this process has held: VmHWM on Linux, where ru_maxrss starts at the parent's peak."""
    status = Path("/proc/self/status")
    if status.exists():
        return 1024 * int(next(line.split()[1] for line in status.read_text().splitlines() if "VmHWM" in line))
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _main(kind: str) -> None:
    from minimal_nn import curvature
    from pruning import exact
    from tests.benchmarks import problems

    small = problems.mlp(64, 20, 20, 10, n=EXAMPLES)
    problem = problems.mlp(*WIDTHS, n=EXAMPLES) if kind == "hessian" else problems.lenet_300_100(1000)
    function = curvature.hessian if kind == "hessian" else exact.saliency
    function(small.L, small.w)  # so that the buffers of the BLAS and imports belong to the baseline
    before = _peak_bytes()
    result = function(problem.L, problem.w)
    allowed = 2 * result.nbytes if kind == "hessian" else 1e9
    what = f"dense Hessian (P={len(problem.w)})" if kind == "hessian" else "exact saliency, LeNet-300-100, N=1000"
    taken = _peak_bytes() - before
    print(json.dumps({"what": what, "p": len(problem.w), "peak": taken, "size": result.nbytes, "allowed": allowed}))


if __name__ == "__main__":
    _main(sys.argv[1])

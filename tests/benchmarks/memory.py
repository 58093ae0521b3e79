"""Peak memory of one dense Hessian with P near 10,000, in a process of its own. `python -m tests.benchmarks.memory`."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

WIDTHS, EXAMPLES = (64, 100, 31, 10), 100  # P = 9951
REQUIRED = 2.0  #: times the size of the Hessian


@dataclass(frozen=True)
class Peak:
    """Bytes that the process took at most, beyond what it took before, and those of the Hessian itself."""

    p: int
    peak: int
    size: int

    @property
    def ratio(self) -> float:
        """peak/size."""
        return self.peak / self.size

    @property
    def reached(self) -> bool:
        """Whether the peak stayed within the requirement.

        The matrix itself is new, up to what was held before and is free again; less would be a wrong measurement.
        """
        return 0.95 <= self.ratio <= REQUIRED


def measure() -> Peak:
    """Run this module in a fresh interpreter, whose peak nothing else has raised."""
    command = [sys.executable, "-m", "tests.benchmarks.memory"]
    return Peak(**json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout))


def _peak_bytes() -> int:
    """Return the most memory this process has held: VmHWM on Linux, where ru_maxrss starts at the parent's peak."""
    status = Path("/proc/self/status")
    if status.exists():
        return 1024 * int(next(line.split()[1] for line in status.read_text().splitlines() if "VmHWM" in line))
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _main() -> None:
    from minimal_nn import curvature
    from tests.benchmarks import problems

    small = problems.mlp(64, 20, 20, 10, n=EXAMPLES)
    curvature.hessian(small.L, small.w)  # so that the buffers of the BLAS and imports belong to the baseline
    problem = problems.mlp(*WIDTHS, n=EXAMPLES)
    before = _peak_bytes()
    H = curvature.hessian(problem.L, problem.w)
    print(json.dumps({"p": len(H), "peak": _peak_bytes() - before, "size": H.nbytes}))


if __name__ == "__main__":
    _main()

"""The results as a table to read and as JSON to keep."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import os
import platform
from typing import Any

import numpy as np

from tests.benchmarks import gemm, memory, threads
from tests.benchmarks.growth import Curve
from tests.benchmarks.rows import Result

PACKAGES = ("numpy", "scipy", "torch", "jax", "jaxlib", "curvlinops-for-pytorch", "backpack-for-pytorch")


def versions() -> dict[str, str]:
    """Return the version of Python and of each package, "not installed" where it is missing."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def machine() -> dict[str, Any]:
    """Return what of the machine matters here: its cores, its kind, NumPy's BLAS, what steers that, and what else runs.

    A load before the first measurement comes from other programs; from about 1 on, they disturb what is measured.
    """
    blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
    steering = {k: v for k, v in sorted(os.environ.items()) if k.startswith("OPENBLAS_") and k not in threads.VARIABLES}
    return {
        "cores": os.cpu_count(),
        "architecture": platform.machine(),
        "blas": f"{blas['name']} {blas['version']}",
        "threads": threads.describe(),
        "load at start": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else "unknown",
        **steering,
    }


def head(machine: dict[str, Any]) -> str:
    """Return the lines above the table: versions, machine, threads."""
    lines = [", ".join(f"{name} {version}" for name, version in versions().items())]
    return "\n".join([*lines, ", ".join(f"{name}: {value}" for name, value in machine.items())])


def line(result: Result) -> str:
    """Return one row of the table."""
    start = f"{result.row.quantity}{f' ({result.problem})' if result.problem else ''}\n    "
    c = result.comparison
    if c is None:
        return f"{start}not measured: {result.reason}"
    verdict = "reached" if result.reached else ("SHORT" if result.agrees else "DISAGREES")
    return (
        f"{start}ours {_time(np.median(c.ours))}  {result.peer} {_time(np.median(c.theirs))}  "
        f"ratio {c.ratio:.2f} (from {min(c.ratios):.2f} to {max(c.ratios):.2f})  required {result.row.required:g}  "
        f"disagreement {result.disagreement:.1e}  {verdict}"
    )


def memory_line(peak: memory.Peak) -> str:
    """Return the row of a peak memory."""
    return (
        f"peak memory of the {peak.what}\n    {peak.peak / 2**20:.0f} MiB, {peak.ratio:.2f} times its own "
        f"{peak.size / 2**20:.0f} MiB  required at most {peak.allowed / 2**20:.0f} MiB  "
        f"{'reached' if peak.reached else 'SHORT'}"
    )


def share_line(share: gemm.Share) -> str:
    """Return the row of the rates."""
    return (
        f"closed-form Hessian of the MLP\n    {share.hessian:.1f} of {share.machine:.1f} GFLOP/s that a matrix product "
        f"reaches in float64: {share.share:.0%}, counting N P (P + 1) operations"
    )


def growth_lines(curves: list[Curve]) -> str:
    """Return the table of time against P and N."""
    blocks = []
    for c in curves:
        times = "  ".join(f"{size}: {_time(t)}" for size, t in zip(c.sizes, c.seconds, strict=True))
        blocks.append(f"time against {c.against}, {c.route}: slope {c.slope:.2f}\n    {times}")
    return "\n".join(blocks)


def as_json(command: str, machine: dict[str, Any], results: list[Result], **parts: Any) -> dict[str, Any]:
    """Return everything as plain values; `parts` may hold peaks, the share and curves."""
    out: dict[str, Any] = {"command": command, "versions": versions(), "machine": machine}
    out["rows"] = [_row_as_json(r) for r in results]
    if peaks := parts.get("peaks"):
        out["memory"] = [dataclasses.asdict(peak) | {"reached": peak.reached} for peak in peaks]
    if share := parts.get("share"):
        out["gflops"] = {"machine": share.machine, "hessian": share.hessian, "share": share.share}
    for name in ("growth", "saliency_growth"):
        if curves := parts.get(name):
            out[name] = [dataclasses.asdict(curve) | {"slope": curve.slope} for curve in curves]
    return out


def _row_as_json(r: Result) -> dict[str, Any]:
    row = {"name": r.row.name, "quantity": r.row.quantity, "problem": r.problem, "required": r.row.required}
    if r.comparison is None:
        return row | {"not_measured": r.reason}
    c = r.comparison
    return row | {
        "peer": r.peer,
        "ours": float(np.median(c.ours)),
        "theirs": float(np.median(c.theirs)),
        "ratio": c.ratio,
        "ratios": c.ratios,
        "disagreement": r.disagreement,
        "reached": r.reached,
    }


def _time(seconds: float) -> str:
    return f"{seconds:.3g} s" if seconds >= 0.1 else f"{1e3 * seconds:.3g} ms"

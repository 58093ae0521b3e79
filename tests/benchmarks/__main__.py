"""`python -m tests.benchmarks`: run the comparisons, print the table, and keep it where the options say."""

from __future__ import annotations

from tests.benchmarks import threads

threads.fix()  # before anything that imports NumPy

import argparse  # noqa: E402 - see above
import json  # noqa: E402
import sys  # noqa: E402
from pathlib import Path  # noqa: E402

from tests.benchmarks import gemm, growth, memory, report, saliency_growth  # noqa: E402
from tests.benchmarks.rows import ROWS, measure  # noqa: E402

OTHERS = ("memory", "gemm", "growth", "saliency-growth")


def main(arguments: list[str] | None = None) -> int:
    """Return 1 where results disagree, or, with --strict, where any row is missing or short of what it must reach."""
    options = _parser().parse_args(arguments)
    wanted = [name for name in [*(row.name for row in ROWS), *OTHERS] if not options.only or options.only in name]
    if not wanted:
        sys.exit(f"--only: expected part of one of {', '.join([*(row.name for row in ROWS), *OTHERS])}")
    machine = report.machine()  # before anything here adds to the load
    print(report.head(machine), flush=True)
    results = []
    for row in ROWS:
        if row.name in wanted:
            results.append(measure(row, options.repeats))
            print(f"[{row.name}] {report.line(results[-1])}", flush=True)
    peaks, share, curves, saliency_curves = [], None, None, None
    if "memory" in wanted:
        for kind in memory.KINDS:
            peaks.append(memory.measure(kind))
            print(f"[memory] {report.memory_line(peaks[-1])}", flush=True)
    if "gemm" in wanted:
        share = gemm.measure(options.repeats)
        print(f"[gemm] {report.share_line(share)}", flush=True)
    if "growth" in wanted:
        curves = growth.measure(min(3, options.repeats))
        print(f"[growth] {report.growth_lines(curves)}", flush=True)
    if "saliency-growth" in wanted:
        saliency_curves = saliency_growth.measure(min(3, options.repeats))
        print(f"[saliency-growth] {report.growth_lines(saliency_curves)}", flush=True)
    if options.json:
        parts = {"peaks": peaks, "share": share, "growth": curves, "saliency_growth": saliency_curves}
        kept = report.as_json(_command(options), machine, results, **parts)
        options.json.write_text(json.dumps(kept, indent=2) + "\n")
    if options.plot and curves:
        growth.plot(curves, options.plot)
    if options.plot and saliency_curves:
        saliency_growth.plot(saliency_curves, options.plot.with_stem(f"{options.plot.stem}_saliency"))
    disagree = any(r.comparison is not None and not r.agrees for r in results)
    short = not all(r.reached for r in results) or not all(peak.reached for peak in peaks)
    return int(disagree or (options.strict and short))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks", description=__doc__.partition(": ")[2].capitalize()
    )
    parser.add_argument("--only", metavar="NAME", help=f"rows whose name contains NAME, or one of {', '.join(OTHERS)}")
    parser.add_argument("--repeats", metavar="N", type=_positive, default=7, help="measurements of each route (7)")
    parser.add_argument("--json", metavar="PATH", type=Path, help="write the results there")
    parser.add_argument(
        "--plot",
        metavar="PATH",
        type=Path,
        help="draw time against P and N there, as PNG, and beside it *_saliency.png",
    )
    parser.add_argument("--strict", action="store_true", help="exit with 1 where a row is missing or short")
    return parser


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, got {text!r}")
    return int(text)


def _command(options: argparse.Namespace) -> str:
    """Return the command that repeats this run, without the paths of this machine."""
    parts = ["python -m tests.benchmarks", f"--repeats {options.repeats}"]
    return " ".join([*parts, f"--only {options.only}"] if options.only else parts)


if __name__ == "__main__":
    sys.exit(main())

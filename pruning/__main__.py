"""`python -m pruning`: compare criteria with the exact saliency, compute that alone, or judge other implementations."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from pruning.commands import compare, exact, oracle
from pruning.commands.options import Parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns 0, or 1 when data cannot be had or a file not be written, 130 when
    interrupted; a bad value exits with 2.
    """
    parser = Parser(prog="python -m pruning", description="Neural-network pruning beside the truth.")
    commands = parser.add_subparsers(metavar="command", required=True)
    for command in (compare, exact, oracle):
        command.add_to(commands)
    options = parser.parse_args(arguments)
    files = {f"--{name}": path for name in FILES if (path := getattr(options, name, None))}
    for name, path in files.items():
        others = [other for other in files if other < name and files[other].resolve() == path.resolve()]
        if others:
            parser.error(f"argument {name}: expected another file than that of {others[0]}, got '{path}'")
    try:
        return options.run(options)
    except (OSError, ValueError, FloatingPointError, MemoryError) as error:
        print(f"python -m pruning: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("python -m pruning: interrupted", file=sys.stderr)
        return 130


FILES = ("checkpoint", "figure", "json", "output")  #: options that name a file to write

if __name__ == "__main__":
    sys.exit(main())

"""The commands of `python -m pruning`, one file each; nothing here is meant to be imported."""

__all__: list[str] = []

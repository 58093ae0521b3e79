"""Runs that take longer than a chapter may, and what they found."""

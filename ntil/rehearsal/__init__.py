"""Rehearsal of runs: the real worker on the longest rows for a few steps, measured phase by phase."""

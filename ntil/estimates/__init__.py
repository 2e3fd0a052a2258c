"""Estimates made before a run starts: memory, time and disk, from the sizes of its model."""

"""Ranks of a run, interrupts, and parameters partitioned by ZeRO-3."""

"""Rendering of analyses: tables, plots, examples and HTML."""

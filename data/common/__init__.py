"""Shared parts of sources: errors, rows, tables, images, files and the cache."""

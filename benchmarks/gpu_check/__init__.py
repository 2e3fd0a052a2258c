"""Checks of what only a GPU shows, one file each; `python -m benchmarks.gpu_check` writes docs/gpu.md."""

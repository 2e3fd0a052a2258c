"""Run folders: files, identity of data and environment, checkpoints, lock and status."""

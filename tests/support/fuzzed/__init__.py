"""Small valid file sets of every source that reads files, and seeded mutations of them; see `harness`."""

"""Launch of runs: the jobs of a sweep, its dry run, and the processes of a run."""

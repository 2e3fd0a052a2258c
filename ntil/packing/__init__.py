"""Examples that begin alike, as questions on one picture, in one sequence: the same numbers from fewer tokens."""

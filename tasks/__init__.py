"""Tasks: one file each, from rows to prompt, answer, parse, score and drawing."""

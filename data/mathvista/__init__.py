"""Sources of visual mathematics, and their schema."""

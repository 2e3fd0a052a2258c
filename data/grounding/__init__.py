"""Sources of referring expressions with boxes, and their schema."""

"""Sources of pictures with annotated text, and their schema."""

"""Sources of several objects or points a picture, and their schema."""

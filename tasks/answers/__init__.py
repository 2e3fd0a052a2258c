"""Reading of answers: coordinates, numbers, reading order, MathVista's extraction."""

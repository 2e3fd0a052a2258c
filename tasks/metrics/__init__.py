"""Official scores: overlap of boxes and polygons, text detection, MathVista."""

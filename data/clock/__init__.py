"""Sources of analogue clocks, and their schema."""

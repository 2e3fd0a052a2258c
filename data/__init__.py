"""Sources of rows: rendered, released and user data; one file each."""

"""Model families: one file each, and nothing about a family outside its file."""

"""Augmentation of pictures in training, with the numbers of their rows: options, draws, and what they do to a row."""

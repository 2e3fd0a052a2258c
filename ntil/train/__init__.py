"""Training: Hugging Face's Trainer with number losses on supervised positions."""

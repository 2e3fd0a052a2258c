"""A run that ends in seconds, as overrides. What a test needs otherwise it says after these: the last word counts."""

TINY_RUN = [
    "curriculum=none",
    "optim.batch_size=8",
    "optim.warmup=1",
    "evaluation.every_steps=0",
    "tracker=none",
    "log_every=1",
    "engine.threads=1",
]

"""Number losses in trainers of others: one file a peer, imported by name, each of which needs its peer only."""

"""A protocol that can decide between losses: equal searches, seeds at each one's best, hypotheses before."""

"""The bench: variants beside their peers, checked and timed in one run."""

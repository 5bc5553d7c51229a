"""Models that carry a state from row to row."""

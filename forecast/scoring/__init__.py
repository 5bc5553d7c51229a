"""Scoring: measures and their sums over batches."""

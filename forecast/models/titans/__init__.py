"""Titans: a neural memory that learns at test time (Behrouz et al., arXiv 2501.00663)."""

"""Todyformer: transformers on dynamic graphs (Biparva et al., 2024)."""

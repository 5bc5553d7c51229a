"""LMUFormer: Legendre memories between pointwise layers (Liu et al., ICLR 2024)."""

"""Training: the loop, checkpoints, the optimiser and several processes."""

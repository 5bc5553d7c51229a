"""Public benchmarks: sets, protocol, published peers."""

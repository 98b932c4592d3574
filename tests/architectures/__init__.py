"""Published architectures in plain PyTorch, with seeded random weights, and their exports in every format."""

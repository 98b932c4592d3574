"""TorchScript archives, read without running them: zip, pickle, code as a syntax tree, and its evaluation."""

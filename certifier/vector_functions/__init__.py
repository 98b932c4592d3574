"""Maps of vectors with a proved Lipschitz constant: poolings, reductions, softmax, normalisations."""

"""Finds multipliers by gradient descent: the covariance recursion, what it is to make small, and the descent."""

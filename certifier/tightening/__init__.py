"""Searches for witnesses within a time, one module for each method; the checks in `bounds` and `frequencies` decide."""

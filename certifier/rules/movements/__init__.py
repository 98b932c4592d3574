"""Operators that only move numbers, drop them, repeat them or set constants beside them.

Each is `moved`: an array of the places that the outputs are read from, made by applying numpy's operation of
the same meaning to the input's own places.  The batch axis, of size 1, is an axis like any other.
"""

from certifier.rules.movements import blocks, joining, padding, selections, shapes  # noqa: F401  (registers rules)
from certifier.rules.movements.places import axis_of, integers_of, moved, places, within

__all__ = ["axis_of", "integers_of", "moved", "places", "within"]

"""Exported sub-graphs recognised as one function: the served nodes stay as they are, only the bounded term differs."""

from __future__ import annotations

from certifier.graph import Node
from certifier.patterns import activations, masking, selections, signs
from certifier.patterns.composites import with_composites
from certifier.patterns.matching import Surroundings
from certifier.terms import Term

__all__ = ["Surroundings", "recognise", "with_composites"]


def recognise(root: Node, around: Surroundings) -> Term | None:
    """The term of the function that ends in `root`, or None; it reads only values that have a bound.

    Every inner value is read inside the pattern alone, and the nodes and the term were evaluated side by side.
    """
    if root.domain != "":
        return None
    if root.operator == "TopK":
        return selections.match(root, around)
    if root.operator == "Softmax":
        return masking.match(root, around)
    if root.operator == "Reciprocal":
        return activations.match(root, around)
    if root.operator not in ("Mul", "Div"):
        return None
    live = [name for name in root.inputs if name not in around.constants]
    # A number times a value is a pattern only where it is one over a value.
    if len(root.inputs) != 2 or live != [*root.inputs][2 - len(live) :] or (len(live) < 2 and root.operator == "Mul"):
        return None
    if root.operator == "Mul" and (found := signs.match(root, around)) is not None:
        return found
    return activations.match(root, around)

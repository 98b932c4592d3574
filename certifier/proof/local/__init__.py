"""Bounds that hold in a ball around one input: f(x') for every x' with ||x' - x|| <= r.

By induction over the terms of a network, every value gets an interval and every activation a line below and a line
above on its interval; a linear functional of any value is then bounded by following it backwards to the input, where
|a.(x' - x)| <= ||a|| ||x' - x||.  Slopes of lines are free: the search chooses them, `relaxations` proves intercepts.

Trusted: `relaxations`, `selections`, `spans`, `backward`, `analysis`.  The proof is docs/proofs/local-refinement.md.
"""

"""Graph node -> terms: one short named function per operator, grouped by family."""

from certifier.rules import (  # noqa: F401  (importing a family registers its rules)
    activations,
    arithmetic,
    assignments,
    convolutions,
    einsum,
    matrices,
    movements,
    normalisations,
    poolings,
    recurrent,
    reductions,
    resizing,
    steep,
)

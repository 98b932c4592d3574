"""Methods that turn a network into proved constants, from the product of norms upward."""

from certifier.bounds.product import ProductBound

__all__ = ["ProductBound"]

"""Blocks of space as channels and back; triangles."""

from __future__ import annotations

import numpy as np

from certifier.rules.movements.places import moved, places
from certifier.rules.registry import Site, rule
from certifier.terms import Term


def _blocks(site: Site) -> tuple[np.ndarray, int, str]:
    own, block = places(site), site.integer("blocksize", 0)
    mode = site.text("mode", "DCR")
    if own.ndim != 4 or block < 1:
        raise site.refuse(f"needs 4 axes and a positive blocksize, got {own.shape} and {block}")
    if mode not in ("DCR", "CRD"):
        raise site.refuse(f"mode {mode!r} is not known")
    return own, block, mode


@rule("DepthToSpace", since=(1, 11, 13, 28), attributes=("blocksize", "mode"))
def depth_to_space(site: Site) -> tuple[Term, ...]:
    """Channels spread over blocks of pixels, in DCR or CRD order."""
    own, block, mode = _blocks(site)
    count, depth, height, width = own.shape
    if depth % block**2:
        raise site.refuse(f"{depth} channels do not fill blocks of {block} x {block}")
    channels = depth // block**2
    if mode == "DCR":
        spread = own.reshape(count, block, block, channels, height, width).transpose(0, 3, 4, 1, 5, 2)
    else:
        spread = own.reshape(count, channels, block, block, height, width).transpose(0, 1, 4, 2, 5, 3)
    return (moved(site, spread.reshape(count, channels, height * block, width * block)),)


@rule("SpaceToDepth", since=(1, 13, 28), attributes=("blocksize", "mode"))
def space_to_depth(site: Site) -> tuple[Term, ...]:
    """Blocks of pixels gathered into channels, in DCR or CRD order: the inverse of DepthToSpace."""
    own, block, mode = _blocks(site)
    count, channels, height, width = own.shape
    if height % block or width % block:
        raise site.refuse(f"{height} x {width} pixels do not divide into blocks of {block} x {block}")
    cells = own.reshape(count, channels, height // block, block, width // block, block)
    order = (0, 3, 5, 1, 2, 4) if mode == "DCR" else (0, 1, 3, 5, 2, 4)
    gathered = cells.transpose(order).reshape(count, channels * block**2, height // block, width // block)
    return (moved(site, gathered),)


@rule("Trilu", since=(14,), attributes=("upper",))
def trilu(site: Site) -> tuple[Term, ...]:
    """x with one triangle of its last two axes zeroed; k constant."""
    own = places(site)
    if own.ndim < 2:
        raise site.refuse(f"needs two axes, got {own.shape}")
    k = int(np.asarray(site.constant(1, "the diagonal k")).reshape(())) if site.has(1) else 0
    mask = np.ones(own.shape[-2:], dtype=bool)
    kept = np.triu(mask, k) if site.integer("upper", 1) else np.tril(mask, k)
    return (moved(site, np.where(kept, own, -1)),)

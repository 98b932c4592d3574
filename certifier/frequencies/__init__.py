"""Bounds of convolutional networks by multipliers shared across the frequencies of a torus, with their witnesses.

    network -> lowering -> operations on signals -> scheduling -> segments -> (search, proof) -> constants

`views` says where a value's entries lie, `maps` what kernels stand for linear maps, `lowering` and `linear` turn terms
into operations that `recording` writes down, `scheduling` puts them on one joint state and chooses the tori.  A
certificate rests on these as on `certifier.proof.frequency`: they say what is proved.  `method` is what is called.
"""

"""The trusted core: everything that a certificate rests on, and nothing else.

    untrusted witness (a number mu) ─► proof.dense / proof.torus ─► proof.semidefinite ─► bound or refusal

No search, no torch, no tolerance in favour of the claim. Each inequality is argued where it is used or in
`docs/proofs/`; what is assumed of the machine's arithmetic is listed in `docs/proofs/arithmetic.md`.
"""

"""Seeded faults: the proof that the tests would notice."""

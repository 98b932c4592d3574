"""Mutated uploads: small good models of every format, damaged at random but repeatably, and fed to the library."""

"""Certificates as files: what is written down, and how a verifier proves it again without any search."""

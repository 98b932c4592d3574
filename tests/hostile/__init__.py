"""Uploads that attack whoever reads them, each with the refusal that it must get."""

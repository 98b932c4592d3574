"""The HTTP routes: each parses, makes one call, and answers with a document."""

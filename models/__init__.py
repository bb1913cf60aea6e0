"""Nouns: models that are ready to use."""

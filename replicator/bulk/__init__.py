"""Bulk migration: names keys by merging listings, and has them converged."""

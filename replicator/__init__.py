"""Replicates buckets: bulk migration, live mirroring and directory push between S3-compatible endpoints."""

__version__ = "0.1.0"

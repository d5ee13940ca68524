"""Replicates buckets: bulk migration and live mirroring between S3-compatible endpoints."""

__version__ = "0.1.0"

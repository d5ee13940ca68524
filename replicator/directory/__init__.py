"""A local directory as a source store: only read, but for files that were moved away."""

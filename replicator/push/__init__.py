"""A local directory as the source of an upload: mirrored, moved away, or watched."""

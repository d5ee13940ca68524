"""Code of the Lambda that is not a handler."""

"""Real S3 servers for the tests: child processes on free ports of 127.0.0.1, their state in one directory.

Every module has `missing()`, one line on what to install or None, and `serve(state)`, a context manager that
yields an `Endpoint`. Nothing in here knows pytest, or the product.
"""

from tests.servers.base import Endpoint, ServerError

__all__ = ["Endpoint", "ServerError"]

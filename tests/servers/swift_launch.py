"""Runs a Swift server with the constraints of a directory other than /etc/swift: DIRECTORY SCRIPT ARGUMENT...

Runs inside Swift's own environment. Swift reads [swift-constraints] while it is imported, and only from
/etc/swift; so the directory is set, and the constraints are read again, before the server's script begins.
"""

from __future__ import annotations

import runpy
import sys


def main() -> None:
    from swift.common import utils

    directory, script = sys.argv[1], sys.argv[2]
    utils.set_swift_dir(directory)
    from swift.common import constraints

    constraints.reload_constraints()
    sys.argv = sys.argv[2:]
    runpy.run_path(script, run_name="__main__")


if __name__ == "__main__":
    main()

"""python -m migrate: `replicator migrate`, with SOURCE_BUCKET, TARGET_BUCKET and so on from the environment.

Options of `replicator migrate` may follow, as in `docker run ... s3-migration --dry-run`.
"""

import sys

from replicator.cli.main import run

if __name__ == "__main__":
    run(["migrate", *sys.argv[1:]])

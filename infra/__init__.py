"""Makes, updates and removes what the replicator needs at AWS. docs/AWS.md is for who runs it."""

import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]

sys.path.append(str(ROOT / "syncer"))
"""Where the Lambda's own modules are, which are no package: what they say of settings and permissions is used here."""

"""``python -m bdaudit``."""

from __future__ import annotations

import sys

from bdaudit.cli import main

if __name__ == "__main__":
    sys.exit(main())

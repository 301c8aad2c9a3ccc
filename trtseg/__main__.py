"""`python -m trtseg`, the same as the `trtseg` command."""

import sys

from trtseg.cli import main

if __name__ == "__main__":  # workers import this module again
    sys.exit(main())

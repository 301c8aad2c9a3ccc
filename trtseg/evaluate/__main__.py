"""`python -m trtseg.evaluate`; see `trtseg.evaluate.command`."""

import sys

from trtseg.evaluate.command import main

if __name__ == "__main__":  # workers import this module again
    sys.exit(main())

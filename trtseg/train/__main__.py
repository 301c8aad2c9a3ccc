"""`python -m trtseg.train`, the same command as `trtseg train`."""

import sys

from trtseg.train.command import main

sys.exit(main())

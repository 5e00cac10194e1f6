"""`python -m sparseq.cli`: the same as the command `sparseq`."""

import sys

from .entry import main

sys.exit(main())

"""`python -m sparseq`: the same as the command `sparseq`."""

import sys

from sparseq.cli import main

sys.exit(main())

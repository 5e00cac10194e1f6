"""`python -m sparseq.cli`, as under torchrun."""

import sys

from .entry import main

sys.exit(main())

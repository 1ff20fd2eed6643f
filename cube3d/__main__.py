"""``python -m cube3d``: the command line, where no script ``cube3d`` is on the path, and for ``torchrun -m cube3d``."""

import sys

from cube3d.cli import main

sys.exit(main())

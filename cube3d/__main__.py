"""``python -m cube3d``: the command line, where no script ``cube3d`` is on the path, and for ``torchrun -m cube3d``."""

import sys

from cube3d.errors import is_interrupt


def main() -> int:
    """Runs :func:`cube3d.cli.main`, which takes seconds to import; an interrupt meanwhile is exit status 130, too."""
    try:
        from cube3d import cli

        return cli.main()
    except (Exception, KeyboardInterrupt) as error:
        if not is_interrupt(error):
            raise
        return 130


if __name__ == "__main__":
    sys.exit(main())

"""python -m mien, and the command mien."""

import sys


def main() -> None:
    """Load the command line and run it. Ctrl-C before it answers that itself, as while it is loaded, ends it with a line, too."""
    try:
        from mien import cli

        cli.main()
    except KeyboardInterrupt:
        print("mien: stopped", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()

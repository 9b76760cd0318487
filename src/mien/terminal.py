"""What goes to the terminal: text that neither steers nor breaks it, and no chatter of the libraries."""

import contextlib
import io
import logging
import sys
import warnings
from collections.abc import Iterable, Iterator, Sequence

from PIL import Image


def complain(text: str) -> None:
    """Say on standard error what is wrong."""
    print(f"mien: {printable(text)}", file=sys.stderr)


@contextlib.contextmanager
def stopped(advice: str) -> Iterator[None]:
    """Turn Ctrl-C inside into a line that says what is left or how to go on, and the exit status that a shell gives it."""
    try:
        yield
    except KeyboardInterrupt:
        complain(f"stopped; {advice}" if advice else "stopped")
        sys.exit(130)


def printable(text: str) -> str:
    """The text with whatever would steer or break a terminal (in a file's name, say) spelt out."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def show_table(title: str, names: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table: columns `names`, and the cells of each row as text. A terminal too narrow for its words gets it at full
    width."""
    from rich.console import Console
    from rich.measure import Measurement
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(title), title_justify="left", title_style="bold")
    for name in names:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*row)
    console = Console(highlight=False)
    least, full = Measurement.get(console, console.options.update(width=1000), table)
    if console.width < least:
        console.width = full
    console.print(table)


def spell_out_what_cannot_be_encoded() -> None:
    """Characters that the terminal's encoding lacks are printed as \\u2026 instead of ending the process."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            with contextlib.suppress(ValueError):  # it is closed
                stream.reconfigure(errors="backslashreplace")


def tame_pillow() -> None:
    """Pillow warns and logs about what it finds in a picture; what matters of that is in the picture's row. Its own limit of
    pixels is not needed: mien's holds before anything is decoded."""
    Image.MAX_IMAGE_PIXELS = None
    warnings.filterwarnings("ignore", module="PIL")
    logging.getLogger("PIL").setLevel(logging.CRITICAL)

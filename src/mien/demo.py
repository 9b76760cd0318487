"""The demonstration's picture: Grace Hopper, photographed for the US Navy, public domain, shipped with matplotlib."""

from pathlib import Path

from mien.errors import UsageError


def photograph() -> Path:
    """Where matplotlib keeps the photograph. Raises UsageError where matplotlib is not installed."""
    try:
        from matplotlib.cbook import get_sample_data
    except ImportError:
        raise UsageError(
            'the demonstration reads a photograph that matplotlib ships; run `pip install "mien[plots]"`'
        ) from None
    return Path(str(get_sample_data("grace_hopper.jpg", asfileobj=False)))

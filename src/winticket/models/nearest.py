"""What somebody may have meant."""

import difflib
from collections.abc import Sequence


def nearest(given: str, possible: Sequence[str]) -> str:
    """A hint for an error message, " (did you mean ...?)"; empty where nothing comes near."""
    close = difflib.get_close_matches(given.lower(), possible, n=2, cutoff=0.5)
    return f" (did you mean {' or '.join(close)}?)" if close else ""

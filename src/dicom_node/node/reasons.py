"""How reasons begin that the node knows again when it reads them."""

from __future__ import annotations

REBUILT = "rebuilt from the spool"
"""Of a Series for which a rebuild of the catalog scheduled nothing; `retry --judge` does it."""

LOST = "the spool has lost"
"""Of a Series that is held for want of files."""

NOBODY = "(rebuilt from the spool)"
"""The calling AE title where the sender is not known: too long to be anybody's."""

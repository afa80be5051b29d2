"""What a process may inherit of the environment that is to know no secret."""

from __future__ import annotations

import os

_OF_PYTHON = (
    *("PATH", "HOME", "LANG", "LC_ALL", "LC_CTYPE", "LD_LIBRARY_PATH", "MALLOC_ARENA_MAX"),
    *("PYTHONHOME", "PYTHONPATH", "PYTHONUSERBASE", "PYTHONNOUSERSITE", "PYTHONUTF8"),
    *("PYTHONDONTWRITEBYTECODE", "PYTHONPYCACHEPREFIX"),
    *("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"),
)


def for_python() -> dict[str, str]:
    """What Python and its libraries look at to be found and to start, as far as it is set."""
    return {name: os.environ[name] for name in _OF_PYTHON if name in os.environ}

"""When a certificate that ends is told of. Pure."""

from __future__ import annotations

_DAY_S = 86400.0
AGAIN_S = _DAY_S


def is_due(expires_at: float, now: float, warn_days: float, told_at: float | None) -> bool:
    """Whether to say that it expires, or has expired. told_at: when that was last said."""
    if expires_at - now > warn_days * _DAY_S:
        return False
    return told_at is None or abs(now - told_at) >= AGAIN_S


def words(expires_at: float, now: float) -> str:
    """How long it is good for."""
    days = (expires_at - now) / _DAY_S
    if days < 0:
        return "has expired"
    return "expires today" if days < 1 else f"expires in {int(days)} days"

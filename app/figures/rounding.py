"""Numbers that are claimed: a lower bound is never rounded up, an upper bound never down."""

from math import ceil, floor

TINY = (
    1e-11  # 0.29 · 100 is 28.999…; what is claimed has twelve decimals, so nothing else lies as near to a whole number
)


def round_down(value: float, digits: int = 3) -> str:
    """So many decimals, never rounded up."""
    return f"{floor(value * 10**digits + TINY) / 10**digits:.{digits}f}"


def round_up(value: float) -> str:
    """Three decimals, never rounded down."""
    return f"{ceil(value * 1000 - TINY) / 1000:.3f}"

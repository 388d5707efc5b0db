"""Numbers that are claimed: a lower bound is never rounded up, an upper bound never down."""

from math import ceil, floor


def round_down(value: float, digits: int = 3) -> str:
    """So many decimals, never rounded up."""
    return f"{floor(value * 10**digits) / 10**digits:.{digits}f}"


def round_up(value: float) -> str:
    """Three decimals, never rounded down."""
    return f"{ceil(value * 1000) / 1000:.3f}"

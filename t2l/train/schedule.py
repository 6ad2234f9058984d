"""Learning rate by step."""


def linear_with_warmup(step: int, steps: int, peak: float, warmup_fraction: float) -> float:
    """Rate of update `step` (from 0): up to `peak` over the first `warmup_fraction` of `steps`, then down towards 0.

    The first and the last update count too: neither has rate 0.
    """
    assert 0 <= step < steps
    warmup = round(warmup_fraction * steps)
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * (steps - step) / (steps - warmup)

"""Random numbers that are a pure function of (seed, epoch, sample id, which draw): the same on any rank, in any order,
after any resume. A SplitMix64 finaliser (Steele et al., OOPSLA 2014) over the packed key; numpy only."""

import numpy as np

_STEP = np.uint64(0x9E3779B97F4A7C15)
_MIX1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX2 = np.uint64(0x94D049BB133111EB)


def uniform(seed: int, epoch: int, ids: np.ndarray, *, draws: int, stream: int = 0) -> np.ndarray:
    """(N, draws) float32 in [0, 1). ids: (N,) non-negative integers. stream separates unrelated uses of the same key."""
    with np.errstate(over="ignore"):
        key = _mix(_mix(np.uint64(seed)) ^ np.uint64(epoch)) ^ np.uint64(stream)
        rows = _mix(
            _mix(ids.astype(np.uint64) ^ _mix(key))[:, None] + np.arange(1, draws + 1, dtype=np.uint64)[None] * _STEP
        )
    return ((rows >> np.uint64(40)).astype(np.float32) * np.float32(2**-24)).astype(np.float32)


def normal(seed: int, epoch: int, ids: np.ndarray, *, draws: int, stream: int = 0) -> np.ndarray:
    """(N, draws) float32 standard normal, by Box and Muller (1958)."""
    u = uniform(seed, epoch, ids, draws=2 * draws, stream=stream)
    radius = np.sqrt(-2 * np.log1p(-u[:, :draws]))
    return (radius * np.cos(np.float32(2 * np.pi) * u[:, draws:])).astype(np.float32)


def permutation(seed: int, epoch: int, count: int) -> np.ndarray:
    """A permutation of range(count) that depends on (seed, epoch) alone."""
    return np.random.default_rng([seed, epoch]).permutation(count)


def _mix(z: np.ndarray | np.uint64) -> np.ndarray:
    with np.errstate(over="ignore"):
        state: np.ndarray = np.asarray(z + _STEP, np.uint64)
        state = (state ^ (state >> np.uint64(30))) * _MIX1
        state = (state ^ (state >> np.uint64(27))) * _MIX2
        return np.asarray(state ^ (state >> np.uint64(31)))

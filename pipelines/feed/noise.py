"""Randomness without a state: a number depends on the seed and on what it is for, never on what was drawn before.

So the simulated network is the same however its time is cut into batches, and after any restart.
"""

from zlib import crc32

import numpy as np
from numpy.typing import ArrayLike, NDArray

Reals = NDArray[np.float64]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def hashed(seed: int, purpose: str, *indices: ArrayLike) -> NDArray[np.uint64]:
    """64 well-mixed bits for each element of the broadcast ``indices`` (integers, negative ones included)."""
    start = np.array((seed & 0xFFFFFFFF) << 32 | crc32(purpose.encode()), dtype=np.uint64)
    with np.errstate(over="ignore"):
        bits = _mix(start + _GOLDEN)
        for index in indices:
            bits = _mix(bits ^ (np.asarray(index).astype(np.int64).view(np.uint64) * _GOLDEN + _GOLDEN))
    return np.asarray(bits, dtype=np.uint64)


def uniform(seed: int, purpose: str, *indices: ArrayLike) -> Reals:
    """Evenly distributed in [0, 1)."""
    return (hashed(seed, purpose, *indices) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def normal(seed: int, purpose: str, *indices: ArrayLike) -> Reals:
    """Of mean 0 and standard deviation 1 (Box-Muller on the two halves of a hash, so within 6.7 of the mean)."""
    bits = hashed(seed, purpose, *indices)
    radius = ((bits >> np.uint64(32)).astype(np.float64) + 0.5) * 2.0**-32
    angle = (bits & np.uint64(0xFFFFFFFF)).astype(np.float64) * 2.0**-32
    return np.sqrt(-2.0 * np.log(radius)) * np.cos(2.0 * np.pi * angle)


def _mix(bits: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finalizer of splitmix64 (Steele, Lea and Flood, OOPSLA 2014)."""
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> np.uint64(31))

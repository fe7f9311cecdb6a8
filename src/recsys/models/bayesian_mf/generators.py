"""Generators of random numbers in NumPy, whose state can be kept as an array."""

from typing import Any

import numpy as np

from recsys.arrays import Array


def make_generator(seed: int | np.random.SeedSequence) -> np.random.Generator:
    """One whose state is a few whole numbers."""
    return np.random.Generator(np.random.SFC64(seed))


def get_state(generator: np.random.Generator) -> Array:
    """Its four numbers, and what is left over of one after a draw in float32, in bytes: (48,)."""
    state: Any = generator.bit_generator.state
    return np.array([*state["state"]["state"], state["has_uint32"], state["uinteger"]], np.uint64).view(np.uint8)


def set_state(generator: np.random.Generator, state: Array) -> None:
    """Have a generator go on from such a state."""
    *numbers, has_half, half = np.frombuffer(state.tobytes(), np.uint64).tolist()
    generator.bit_generator.state = {
        "bit_generator": "SFC64",
        "state": {"state": np.array(numbers, np.uint64)},
        "has_uint32": has_half,
        "uinteger": half,
    }

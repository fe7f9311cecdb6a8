"""Loops that Numba compiles, kept in the user's cache folder."""

import math
from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba.core import cgutils, codegen
from numba.extending import intrinsic
from numpy.typing import NDArray
from platformdirs import user_cache_path

# Sums may be computed in any order, so that one instruction adds many numbers; NaN and infinity stay what they are.
_FAST_MATH = {"reassoc", "contract", "nsz", "arcp"}
LANE = 16
"""Numbers of 4 bytes in a line of the processor's cache: tables whose width is a multiple of it have no rest."""
TILE = 8 if "+avx512f" in codegen.get_host_cpu_features() else 4
"""Rows of a tile of `add_products`, whose sums fit into the processor's registers."""

part_of_loop = numba.njit(fastmath=_FAST_MATH, error_model="numpy")
"""Decorates a function that a compiled loop calls."""


def compile_loop(function: Callable[..., Any], *example: object) -> Callable[..., Any]:
    """The function, compiled for arguments like the example's, or read from the cache folder, and called once.

    It runs on one thread and without the interpreter's lock, so that a heartbeat goes on meanwhile. Where the cache
    folder cannot be written, or holds what cannot be read, it is compiled for this process alone.
    """
    try:
        return _compile(function, example, is_cached=True)
    except Exception:  # whatever is wrong with a cache; what is wrong with the code is raised again below
        return _compile(function, example, is_cached=False)


def aligned_zeros(*shape: int) -> NDArray[np.float32]:
    """Zeros that begin where a line of the cache does. NumPy's may begin anywhere, and then a LANE is in two lines."""
    size = math.prod(shape)
    room = np.zeros(size + LANE, np.float32)
    first = -(room.ctypes.data // room.itemsize) % LANE
    return room[first : first + size].reshape(shape)


def get_ready() -> None:
    """Have Numba take in what it knows of Python and NumPy: 0.4 s, for a process that forks others that compile."""
    numba.njit("void()")(_do_nothing)


def _do_nothing() -> None:
    """What is compiled to get ready."""


def available_threads() -> int:
    """Threads for loops side by side: one a core that this process may use, or as NUMBA_NUM_THREADS says."""
    return int(numba.config.NUMBA_NUM_THREADS)


def _compile(function: Callable[..., Any], example: tuple[object, ...], *, is_cached: bool) -> Callable[..., Any]:
    before = numba.config.CACHE_DIR, numba.config.CACHE_LOCATOR_CLASSES
    # This folder or none: else Numba writes beside the source. One that the user chose (NUMBA_CACHE_DIR) stays.
    numba.config.CACHE_DIR = before[0] or str(user_cache_path("recsys") / "numba")
    numba.config.CACHE_LOCATOR_CLASSES = "UserProvidedCacheLocator"
    try:
        compiled: Callable[..., Any] = numba.njit(
            fastmath=_FAST_MATH, error_model="numpy", nogil=True, cache=is_cached
        )(function)
    finally:
        numba.config.CACHE_DIR, numba.config.CACHE_LOCATOR_CLASSES = before
    compiled(*example)
    return compiled


@intrinsic  # type: ignore[untyped-decorator]
def add_products(typing_context: Any, lines: Any, count: Any, first: Any, column: Any, sums: Any) -> Any:
    """In a compiled loop: adds X'Y to a tile of `sums`, X and Y being columns of the first `count` lines.

    add_products(lines, count, first, column, sums): `lines` (n, width) and `sums` (width, width) are float32 and
    contiguous. X begins at column `first` and is TILE wide, Y at `column` and LANE wide. Numba would load and store
    each sum at each line; here they stay in registers.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        table, total = (context.make_array(signature.args[at])(context, builder, arguments[at]) for at in (0, 4))
        _, count, first, column, _ = arguments
        width = builder.extract_value(table.shape, 1)
        vector = ir.VectorType(ir.FloatType(), LANE)

        def place(array: Any, row: Any, at: Any) -> Any:
            return builder.gep(array.data, [builder.add(builder.mul(row, width), at)])

        def load(at: Any) -> Any:
            return builder.load(builder.bitcast(at, vector.as_pointer()), align=4)

        rows = [builder.add(first, ir.Constant(first.type, k)) for k in range(TILE)]
        places = [place(total, row, column) for row in rows]
        held = [cgutils.alloca_once_value(builder, load(at)) for at in places]
        with cgutils.for_range(builder, count) as loop:
            line = load(place(table, loop.index, column))
            for row, one in zip(rows, held, strict=True):
                copies = _repeat(builder, builder.load(place(table, loop.index, row)))
                product = builder.fmul(copies, line, flags=["contract"])
                builder.store(builder.fadd(builder.load(one), product, flags=["contract"]), one)
        for at, one in zip(places, held, strict=True):
            builder.store(builder.load(one), builder.bitcast(at, vector.as_pointer()), align=4)
        return context.get_dummy_value()

    whole = numba.types.intp
    return numba.types.void(lines, whole, whole, whole, sums), generate


@intrinsic  # type: ignore[untyped-decorator]
def subtract_scaled(
    typing_context: Any, to: Any, at: Any, by: Any, place: Any, other: Any, start: Any, count: Any
) -> Any:
    """In a compiled loop: to[at + i] -= by[place] * other[start + i], for i below `count`; lines of LANE float32.

    The three may be one array. Numba would have to ask at every line whether they overlap.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        to, by, other = (_lines(context, builder, signature, arguments, k) for k in (0, 2, 4))
        factor = builder.load(by, align=4)
        with cgutils.for_range(builder, arguments[6]) as loop:
            into = builder.gep(to, [loop.index])
            product = builder.fmul(factor, builder.load(builder.gep(other, [loop.index]), align=4), flags=["contract"])
            builder.store(builder.fsub(builder.load(into, align=4), product, flags=["contract"]), into, align=4)
        return context.get_dummy_value()

    whole = numba.types.intp
    return numba.types.void(to, whole, by, whole, other, whole, whole), generate


@intrinsic  # type: ignore[untyped-decorator]
def subtract_products(
    typing_context: Any, to: Any, at: Any, one: Any, first: Any, other: Any, start: Any, count: Any
) -> Any:
    """In a compiled loop: to[at] -= the sum of one[first + i] * other[start + i], for i below `count`."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        to, one, other = (_lines(context, builder, signature, arguments, k) for k in (0, 2, 4))
        total = cgutils.alloca_once_value(builder, builder.load(to, align=4))
        with cgutils.for_range(builder, arguments[6]) as loop:
            factors = (builder.load(builder.gep(lines, [loop.index]), align=4) for lines in (one, other))
            product = builder.fmul(*factors, flags=["contract"])
            builder.store(builder.fsub(builder.load(total), product, flags=["contract"]), total)
        builder.store(builder.load(total), to, align=4)
        return context.get_dummy_value()

    whole = numba.types.intp
    return numba.types.void(to, whole, one, whole, other, whole, whole), generate


@intrinsic  # type: ignore[untyped-decorator]
def inner_product(typing_context: Any, one: Any, first: Any, other: Any, start: Any, count: Any) -> Any:
    """In a compiled loop: the sum of one[first + i] * other[start + i], for i < `count`, at least 1; lines as above."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        one, other = (_lines(context, builder, signature, arguments, k) for k in (0, 2))
        total = cgutils.alloca_once_value(builder, builder.fmul(*(builder.load(at, align=4) for at in (one, other))))
        with cgutils.for_range(builder, arguments[4], start=ir.Constant(arguments[4].type, 1)) as loop:
            factors = (builder.load(builder.gep(lines, [loop.index]), align=4) for lines in (one, other))
            product = builder.fmul(*factors, flags=["contract"])
            builder.store(builder.fadd(builder.load(total), product, flags=["contract"]), total)
        sums, width = builder.load(total), LANE
        while width > 1:
            width //= 2
            halves = ([*range(at, at + width)] for at in (0, width))
            sums = builder.fadd(*(_select(builder, sums, places) for places in halves))
        return builder.extract_element(sums, ir.Constant(ir.IntType(32), 0))

    whole = numba.types.intp
    return numba.types.float32(one, whole, other, whole, whole), generate


@intrinsic  # type: ignore[untyped-decorator]
def mix_lines(
    typing_context: Any,
    one: Any,
    first: Any,
    other: Any,
    start: Any,
    count: Any,
    keep_one: Any,
    keep_other: Any,
    weight: Any,
) -> Any:
    """In a compiled loop: x, y = keep_one * x + weight * y, keep_other * y + weight * x, for lines x and y as above."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        one, other = (_lines(context, builder, signature, arguments, k) for k in (0, 2))
        keep_one, keep_other, weight = (_repeat(builder, number) for number in arguments[5:])
        with cgutils.for_range(builder, arguments[4]) as loop:
            places = [builder.gep(lines, [loop.index]) for lines in (one, other)]
            lines = [builder.load(at, align=4) for at in places]
            for keep, line, added, at in zip((keep_one, keep_other), lines, lines[::-1], places, strict=True):
                kept, moved = (builder.fmul(*pair, flags=["contract"]) for pair in ((keep, line), (weight, added)))
                builder.store(builder.fadd(kept, moved, flags=["contract"]), at, align=4)
        return context.get_dummy_value()

    whole, number = numba.types.intp, numba.types.float32
    return numba.types.void(one, whole, other, whole, whole, number, number, number), generate


@intrinsic  # type: ignore[untyped-decorator]
def fetch(typing_context: Any, array: Any, at: Any) -> Any:
    """In a compiled loop: have array[at], counted through the whole array, on the way to the cache, if it is there."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        byte, whole = ir.IntType(8).as_pointer(), ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [byte, whole, whole, whole])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0i8")
        to_read_soon_as_data = (ir.Constant(whole, number) for number in (0, 3, 1))
        builder.call(function, [builder.bitcast(builder.gep(data, [arguments[1]]), byte), *to_read_soon_as_data])
        return context.get_dummy_value()

    return numba.types.void(array, numba.types.intp), generate


def _repeat(builder: Any, number: Any) -> Any:
    """A vector of LANE copies of a number."""
    nothing = ir.Constant(ir.VectorType(ir.FloatType(), LANE), ir.Undefined)
    return _select(builder, builder.insert_element(nothing, number, ir.Constant(ir.IntType(32), 0)), [0] * LANE)


def _select(builder: Any, vector: Any, places: list[int]) -> Any:
    """The vector of what is at these places of a vector."""
    chosen = ir.Constant(ir.VectorType(ir.IntType(32), len(places)), places)
    return builder.shuffle_vector(vector, ir.Constant(vector.type, ir.Undefined), chosen)


def _lines(context: Any, builder: Any, signature: Any, arguments: Any, k: int) -> Any:
    """A pointer to the vector that is line `arguments[k + 1]` of the array `arguments[k]`."""
    array = context.make_array(signature.args[k])(context, builder, arguments[k])
    vectors = builder.bitcast(array.data, ir.VectorType(ir.FloatType(), LANE).as_pointer())
    return builder.gep(vectors, [arguments[k + 1]])

"""What compiled loops do with lines of the processor's cache, LANE float32 each, where Numba would do worse."""

from typing import Any

import numba
from llvmlite import ir
from numba.core import cgutils
from numba.extending import intrinsic

from recsys.runtime.compilation import LANE, TILE


def _product_adder(wide: int) -> Any:
    """add_products for a tile that is so wide."""

    @intrinsic  # type: ignore[untyped-decorator]
    def add(typing_context: Any, lines: Any, count: Any, first: Any, column: Any, sums: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            table, total = (context.make_array(signature.args[at])(context, builder, arguments[at]) for at in (0, 4))
            _, count, first, column, _ = arguments
            width = builder.extract_value(table.shape, 1)
            vector = ir.VectorType(ir.FloatType(), wide)

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
                    copies = _repeat(builder, builder.load(place(table, loop.index, row)), wide)
                    product = builder.fmul(copies, line, flags=["contract"])
                    builder.store(builder.fadd(builder.load(one), product, flags=["contract"]), one)
            for at, one in zip(places, held, strict=True):
                builder.store(builder.load(one), builder.bitcast(at, vector.as_pointer()), align=4)
            return context.get_dummy_value()

        whole = numba.types.intp
        return numba.types.void(lines, whole, whole, whole, sums), generate

    return add


add_products, add_products_half = _product_adder(LANE), _product_adder(LANE // 2)
"""In a compiled loop: adds X'Y to a tile of `sums`, X and Y being columns of the first `count` lines.

add_products(lines, count, first, column, sums): `lines` (n, width) and `sums` (width, width) are float32 and
contiguous. X begins at column `first` and is TILE wide, Y at `column` and LANE wide, or half of it. Numba would load
and store each sum at each line; here they stay in registers.
"""


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
def subtract_columns(
    typing_context: Any, lines: Any, to: Any, one: Any, two: Any, three: Any, four: Any, count: Any
) -> Any:
    """In a compiled loop: lines[to + i] -= the sum of lines[k] * lines[k + i] over the four k, for i below `count`.

    As four calls of subtract_scaled, and each sum is loaded and stored once.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        vectors = _vectors(context, builder, signature, arguments, 0)
        to, columns = builder.gep(vectors, [arguments[1]]), [builder.gep(vectors, [at]) for at in arguments[2:6]]
        factors = [builder.load(column, align=4) for column in columns]
        with cgutils.for_range(builder, arguments[6]) as loop:
            into = builder.gep(to, [loop.index])
            left = builder.load(into, align=4)
            for factor, column in zip(factors, columns, strict=True):
                line = builder.load(builder.gep(column, [loop.index]), align=4)
                left = builder.fsub(left, builder.fmul(factor, line, flags=["contract"]), flags=["contract"])
            builder.store(left, into, align=4)
        return context.get_dummy_value()

    whole = numba.types.intp
    return numba.types.void(lines, *[whole] * 6), generate


@intrinsic  # type: ignore[untyped-decorator]
def scale(typing_context: Any, lines: Any, at: Any, by: Any, count: Any) -> Any:
    """In a compiled loop: lines[at + i] *= by[0], for i below `count`; lines of LANE float32."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        first = _lines(context, builder, signature, arguments, 0)
        factor = builder.load(_vectors(context, builder, signature, arguments, 2), align=4)
        with cgutils.for_range(builder, arguments[3]) as loop:
            at = builder.gep(first, [loop.index])
            builder.store(builder.fmul(builder.load(at, align=4), factor), at, align=4)
        return context.get_dummy_value()

    whole = numba.types.intp
    return numba.types.void(lines, whole, by, whole), generate


@intrinsic  # type: ignore[untyped-decorator]
def substitute(typing_context: Any, one: Any, other: Any, at: Any, by: Any, first: Any, count: Any) -> Any:
    """In a compiled loop: x[at] -= the sum of by[first + i] * x[at + 1 + i], i below `count`, for x `one` and `other`.

    As two calls of subtract_products, neither of which waits for the other.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        both = [builder.gep(_vectors(context, builder, signature, arguments, k), [arguments[2]]) for k in (0, 1)]
        by = _lines(context, builder, signature, arguments, 3)
        totals = [cgutils.alloca_once_value(builder, builder.load(to, align=4)) for to in both]
        with cgutils.for_range(builder, arguments[5]) as loop:
            factor = builder.load(builder.gep(by, [loop.index]), align=4)
            later = builder.add(loop.index, ir.Constant(loop.index.type, 1))
            for to, total in zip(both, totals, strict=True):
                line = builder.load(builder.gep(to, [later]), align=4)
                product = builder.fmul(factor, line, flags=["contract"])
                builder.store(builder.fsub(builder.load(total), product, flags=["contract"]), total)
        for to, total in zip(both, totals, strict=True):
            builder.store(builder.load(total), to, align=4)
        return context.get_dummy_value()

    whole = numba.types.intp
    return numba.types.void(one, other, whole, by, whole, whole), generate


@intrinsic  # type: ignore[untyped-decorator]
def set_scaled(typing_context: Any, to: Any, at: Any, number: Any, by: Any, other: Any, start: Any) -> Any:
    """In a compiled loop: to[at] = number + by[0] * other[start]; lines of LANE float32."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        to, other = (_lines(context, builder, signature, arguments, k) for k in (0, 4))
        by = _vectors(context, builder, signature, arguments, 3)
        factors = (builder.load(line, align=4) for line in (by, other))
        product = builder.fmul(*factors, flags=["contract"])
        sum_ = builder.fadd(_repeat(builder, arguments[2]), product, flags=["contract"])
        builder.store(sum_, to, align=4)
        return context.get_dummy_value()

    whole = numba.types.intp
    return numba.types.void(to, whole, numba.types.float32, by, other, whole), generate


@intrinsic  # type: ignore[untyped-decorator]
def transpose(typing_context: Any, array: Any, first: Any, stride: Any, to: Any, at: Any) -> Any:
    """In a compiled loop: to[at + i, k] = array[first + k * stride + i] for i and k below LANE, as of flat arrays."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        vector = ir.VectorType(ir.FloatType(), LANE).as_pointer()
        rows = []
        for k in range(LANE):
            place = builder.add(arguments[1], builder.mul(arguments[2], ir.Constant(arguments[2].type, k)))
            rows.append(builder.load(builder.bitcast(builder.gep(data, [place]), vector), align=4))
        step = 1
        while step < LANE:  # swaps the squares beside the diagonal of each larger square
            for k in [k for k in range(LANE) if not k & step]:
                one, other = rows[k], rows[k + step]
                rows[k] = _merge(builder, one, other, [i if not i & step else LANE + i - step for i in range(LANE)])
                rows[k + step] = _merge(
                    builder, one, other, [i + step if not i & step else LANE + i for i in range(LANE)]
                )
            step *= 2
        to = _lines(context, builder, signature, arguments, 3)
        for i, row in enumerate(rows):
            builder.store(row, builder.gep(to, [ir.Constant(ir.IntType(64), i)]), align=4)
        return context.get_dummy_value()

    whole = numba.types.intp
    return numba.types.void(array, whole, whole, to, whole), generate


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


def _repeat(builder: Any, number: Any, times: int = LANE) -> Any:
    """A vector of copies of a number."""
    nothing = ir.Constant(ir.VectorType(ir.FloatType(), times), ir.Undefined)
    return _select(builder, builder.insert_element(nothing, number, ir.Constant(ir.IntType(32), 0)), [0] * times)


def _select(builder: Any, vector: Any, places: list[int]) -> Any:
    """The vector of what is at these places of a vector."""
    return _merge(builder, vector, ir.Constant(vector.type, ir.Undefined), places)


def _merge(builder: Any, one: Any, other: Any, places: list[int]) -> Any:
    """The vector of what is at these places of two vectors, counted through both."""
    chosen = ir.Constant(ir.VectorType(ir.IntType(32), len(places)), places)
    return builder.shuffle_vector(one, other, chosen)


def _lines(context: Any, builder: Any, signature: Any, arguments: Any, k: int) -> Any:
    """A pointer to the vector that is line `arguments[k + 1]` of the array `arguments[k]`."""
    return builder.gep(_vectors(context, builder, signature, arguments, k), [arguments[k + 1]])


def _vectors(context: Any, builder: Any, signature: Any, arguments: Any, k: int) -> Any:
    """A pointer to the first line of the array `arguments[k]`."""
    data = context.make_array(signature.args[k])(context, builder, arguments[k]).data
    return builder.bitcast(data, ir.VectorType(ir.FloatType(), LANE).as_pointer())

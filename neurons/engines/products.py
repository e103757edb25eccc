"""Products of spikes and weights for the CPU, compiled with numba.

Inside a time loop the matrices are small and stay in a core's cache, spikes are few, and a call into a BLAS library
would cost more than the product; so these are written here. Sums may be contracted and reordered by the compiler.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from .compiled import kernel

SPARSE_BELOW = 0.4
"""Fraction of values that are not 0 below which a product goes row by row over those: measured, see
``python -m benchmarks.crossover``. A single row is always so done."""
GATE_BELOW = 0.2
"""Fraction of open gates below which only their sums are computed: measured likewise."""


@kernel(fastmath={"contract", "reassoc", "nsz"})
def add_sparse(total: Any, values: Any, matrix: Any, index: Any) -> None:
    """``total[r] += values[r] @ matrix`` over the values that are not 0. ``total`` [R, N], ``values`` [R, K],
    ``matrix`` [K, N]; ``index`` [K] is scratch.
    """
    columns = total.shape[1]
    for r in range(values.shape[0]):
        row, out = values[r], total[r]
        count = 0
        for k in range(row.shape[0]):
            index[count] = k
            count += row[k] != 0
        i = 0
        while i + 4 <= count:  # four at a time, so that the sum is loaded and stored once for four rows
            a, b, c, d = index[i], index[i + 1], index[i + 2], index[i + 3]
            va, vb, vc, vd = row[a], row[b], row[c], row[d]
            ma, mb, mc, md = matrix[a], matrix[b], matrix[c], matrix[d]
            for n in range(columns):
                out[n] += va * ma[n] + vb * mb[n] + vc * mc[n] + vd * md[n]
            i += 4
        while i < count:
            va, ma = row[index[i]], matrix[index[i]]
            for n in range(columns):
                out[n] += va * ma[n]
            i += 1


@kernel(fastmath={"contract", "reassoc", "nsz"})
def add_dense(total: Any, values: Any, matrix: Any) -> None:
    """``total += values @ matrix``, blocked over four rows and four terms."""
    rows, terms = values.shape
    columns = total.shape[1]
    k = 0
    while k + 4 <= terms:
        ma, mb, mc, md = matrix[k], matrix[k + 1], matrix[k + 2], matrix[k + 3]
        r = 0
        while r + 4 <= rows:
            oa, ob, oc, od = total[r], total[r + 1], total[r + 2], total[r + 3]
            va, vb, vc, vd = values[r], values[r + 1], values[r + 2], values[r + 3]
            a0, a1, a2, a3 = va[k], va[k + 1], va[k + 2], va[k + 3]
            b0, b1, b2, b3 = vb[k], vb[k + 1], vb[k + 2], vb[k + 3]
            c0, c1, c2, c3 = vc[k], vc[k + 1], vc[k + 2], vc[k + 3]
            d0, d1, d2, d3 = vd[k], vd[k + 1], vd[k + 2], vd[k + 3]
            for n in range(columns):
                w0, w1, w2, w3 = ma[n], mb[n], mc[n], md[n]
                oa[n] += a0 * w0 + a1 * w1 + a2 * w2 + a3 * w3
                ob[n] += b0 * w0 + b1 * w1 + b2 * w2 + b3 * w3
                oc[n] += c0 * w0 + c1 * w1 + c2 * w2 + c3 * w3
                od[n] += d0 * w0 + d1 * w1 + d2 * w2 + d3 * w3
            r += 4
        while r < rows:
            o, v = total[r], values[r]
            a0, a1, a2, a3 = v[k], v[k + 1], v[k + 2], v[k + 3]
            for n in range(columns):
                o[n] += a0 * ma[n] + a1 * mb[n] + a2 * mc[n] + a3 * md[n]
            r += 1
        k += 4
    while k < terms:
        m = matrix[k]
        for r in range(rows):
            o, a0 = total[r], values[r, k]
            for n in range(columns):
                o[n] += a0 * m[n]
        k += 1


@kernel()
def count_nonzero(values: Any) -> int:
    """How many values of [R, K] are not 0."""
    count = 0
    for r in range(values.shape[0]):
        row = values[r]
        for k in range(row.shape[0]):
            count += row[k] != 0
    return count


@kernel()
def count_into(counts: Any, place: int, values: Any) -> None:
    """Write into ``counts[place]`` how many ``values`` are not 0."""
    counts[place] = count_nonzero(values)


@kernel()
def add_product(total: Any, values: Any, matrix: Any, index: Any) -> None:
    """``total += values @ matrix`` by whichever of the two ways is faster."""
    rows, terms = values.shape
    if rows == 1 or count_nonzero(values) < SPARSE_BELOW * rows * terms:
        add_sparse(total, values, matrix, index)
    else:
        add_dense(total, values, matrix)


@kernel(fastmath={"contract", "reassoc", "nsz"})
def add_gated(total: Any, gate: Any, values: Any, transposed: Any) -> None:
    """``total[r, k] += values[r] . transposed[k]`` only where ``gate[r, k]`` is not 0. ``total`` and ``gate`` [R, K],
    ``values`` [R, N], ``transposed`` [K, N].
    """
    rows, terms = total.shape
    columns = values.shape[1]
    for r in range(rows):
        row = values[r]
        for k in range(terms):
            if gate[r, k] != 0:
                other = transposed[k]
                dot = row[0] * other[0]
                for n in range(1, columns):
                    dot += row[n] * other[n]
                total[r, k] += dot


@kernel(fastmath={"contract", "reassoc", "nsz"})
def add_outer(total: Any, values: Any, grads: Any, first: int, last: int, starts: Any, places: Any) -> None:
    """``total[k] += sum_m values[m, k] grads[m]`` over the values that are not 0, rows ``first`` to ``last``.

    The gradient of the weights: ``values`` [M, K] are the spikes, ``grads`` [M, N] the gradient of the current,
    ``total`` [K, N]. ``starts`` [K + 1] and ``places`` [C K] are scratch; C rows at a time are sorted by column, so
    that a row of ``total`` is loaded and stored once for several spikes.
    """
    terms, columns = values.shape[1], total.shape[1]
    chunk = places.shape[0] // terms
    for begin in range(first, last, chunk):
        end = min(begin + chunk, last)
        starts[:] = 0
        for m in range(begin, end):
            row = values[m]
            for k in range(terms):
                starts[k + 1] += row[k] != 0
        for k in range(terms):
            starts[k + 1] += starts[k]
        for m in range(begin, end):
            row = values[m]
            for k in range(terms):
                if row[k] != 0:
                    places[starts[k]] = m
                    starts[k] += 1
        i = 0
        for k in range(terms):  # starts[k] is now where the entries of column k end
            out, stop = total[k], starts[k]
            while i + 4 <= stop:
                a, b, c, d = places[i], places[i + 1], places[i + 2], places[i + 3]
                va, vb, vc, vd = values[a, k], values[b, k], values[c, k], values[d, k]
                ga, gb, gc, gd = grads[a], grads[b], grads[c], grads[d]
                for n in range(columns):
                    out[n] += va * ga[n] + vb * gb[n] + vc * gc[n] + vd * gd[n]
                i += 4
            while i < stop:
                va, ga = values[places[i], k], grads[places[i]]
                for n in range(columns):
                    out[n] += va * ga[n]
                i += 1


@kernel()
def fill_sparse(total: Any, values: Any, matrix: Any, bias: Any, first: int, last: int, index: Any) -> None:
    """``total[m] = bias + values[m] @ matrix``, rows ``first`` to ``last``; as :func:`add_sparse`, ``bias`` [N]."""
    for m in range(first, last):
        row = total[m]
        for n in range(row.shape[0]):
            row[n] = bias[n]
    add_sparse(total[first:last], values[first:last], matrix, index)


@kernel()
def add_product_where(total: Any, gate: Any, values: Any, matrix: Any, transposed: Any) -> None:
    """``total += values @ matrix`` where ``gate`` is not 0, and anything elsewhere, by whichever way is faster."""
    if count_nonzero(gate) < GATE_BELOW * gate.shape[0] * gate.shape[1]:
        add_gated(total, gate, values, transposed)
    else:
        add_dense(total, values, matrix)


@kernel()
def gather(rows: Any, offset: int, source: Any) -> None:
    """Copy ``source`` [B, K] into ``rows`` [R, K] from row ``offset``."""
    for b in range(source.shape[0]):
        out, row = rows[offset + b], source[b]
        for k in range(row.shape[0]):
            out[k] = row[k]


@cache
def sums_of(copies: int) -> Any:
    """The kernel ``sums(rows, offset, source)`` that puts the sums of every ``copies`` values in turn of ``source``
    [B, copies K] into ``rows`` [R, K] from ``offset``. It is compiled for the number, or it could not be vectorised.
    """

    @kernel(distinct=True)
    def sums(rows: Any, offset: int, source: Any) -> None:
        for b in range(source.shape[0]):
            out, row = rows[offset + b], source[b]
            for k in range(out.shape[0]):
                total = row[copies * k]
                for c in range(1, copies):
                    total += row[copies * k + c]
                out[k] = total

    return sums


@cache
def spread_over(copies: int) -> Any:
    """The kernel ``spread(total, rows)`` that adds each value of ``rows`` [R, K] to ``copies`` values in turn of
    ``total`` [R, copies K]; compiled as :func:`sums_of`.
    """

    @kernel(distinct=True)
    def spread(total: Any, rows: Any) -> None:
        for r in range(rows.shape[0]):
            out, row = total[r], rows[r]
            for k in range(row.shape[0]):
                value = row[k]
                for c in range(copies):
                    out[copies * k + c] += value

    return spread


@kernel()
def scale(rows: Any, offset: int, factor: Any) -> None:
    """Multiply the rows from ``offset`` by ``factor`` [B, K]."""
    for b in range(factor.shape[0]):
        out, row = rows[offset + b], factor[b]
        for k in range(row.shape[0]):
            out[k] *= row[k]


@kernel()
def add_rows(total: Any, offset: int, rows: Any) -> None:
    """Add ``rows`` [B, K] to those of ``total`` from ``offset``."""
    for b in range(rows.shape[0]):
        out, row = total[offset + b], rows[b]
        for k in range(row.shape[0]):
            out[k] += row[k]

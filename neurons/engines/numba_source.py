"""Printing a stage's plan as the source of two numba functions: the time loop forward and the time loop backward.

Each runs a range of samples over all steps, so that a thread needs no other until the end. Within a step the products
of :mod:`.products` fill the rows of each cell's current, and one loop over its neurons, printed by
:mod:`.numba_cells`, runs the step program or its derivative.
"""

from __future__ import annotations

from collections.abc import Iterable

from .numba_cells import cell_backward, cell_forward, cell_gate, cell_restore
from .plan import LinkPlan, Plan


def numba_source(plan: Plan, dtype: str) -> str:
    """The module's source. ``dtype`` is ``float32`` or ``float64``."""
    literals: dict[float, str] = {}
    parts = []
    for i, cell in enumerate(plan.cells):
        parts.append(cell_forward(i, cell.program, plan.saved(i), literals))
        if plan.gradients:
            parts.append(cell_backward(i, cell.derivative, plan.sends(i), literals))
            if cell.derivative.restored:
                parts.append(cell_restore(i, cell.derivative, literals))
            if _gated(plan, i):
                parts.append(cell_gate(i, cell.derivative, literals))
    parts.append(_forward(plan))
    if plan.gradients:
        parts.append(_backward(plan))
    copies = sorted({n for k in plan.links for n in (k.targets, k.sources)} - {1})
    head = [
        '"""Printed by ranvier from a network\'s step programs; printed anew when it differs from what they need."""',
        "import numpy as np",
        "from ranvier.neurons.engines.compiled import kernel",
        "from ranvier.neurons.engines.products import (",
        "    add_product, add_product_where, add_rows, gather, scale, spread_over, sums_of)",
        "from ranvier.neurons.engines.rings import (",
        "    add_gains, clear, move_ring, put_ring, read_pairs, read_ring, ring_length, ring_samples, send_pairs,",
        "    send_taps, take_ring)",
        f"F = np.{dtype}",
        *(f"sums{n}, spread{n} = sums_of({n}), spread_over({n})" for n in copies),
        *(f"{name} = F({value!r})" for value, name in literals.items()),
    ]
    return "\n\n".join(["\n".join(head), *parts]) + "\n"


# -- the time loops ---------------------------------------------------------------------------------


def _gated(plan: Plan, cell: int) -> bool:
    """Whether only part of the recurrent gradient of a cell's output has to be computed."""
    program = plan.cells[cell].program
    compact = program.surrogate is not None and program.surrogate.compact
    sends = any(k.sources == 1 for _, k in plan.out_of(cell))
    return compact and plan.cells[cell].derivative.gate is not None and sends


class _Text:
    """Lines of source with their indentation."""

    def __init__(self, head: str) -> None:
        self.lines = ["@kernel()", head]
        self.depth = 1

    def __call__(self, *lines: str) -> None:
        self.lines += ["    " * self.depth + line for line in lines]

    def block(self, head: str) -> _Text:
        self(head)
        self.depth += 1
        return self

    def end(self, levels: int = 1) -> None:
        self.depth -= levels


def forward_arguments(plan: Plan) -> tuple[str, ...]:
    """Names of the arrays that ``forward`` takes after ``first, last, tile``."""
    return (*_plain(_numbers(plan, plan.inputs)), *_laid_out(plan), *_plain(plan.results))


def backward_arguments(plan: Plan) -> tuple[str, ...]:
    """Names of the arrays that ``backward`` takes after ``first, last, tile``.

    ``d_output0`` [T, B, N] and ``d_states0.v`` [T or 1, B, N] come in, ``d_current0`` [T, B, N], ``d_state0.v`` [B, N]
    and ``d_value0.x`` [N] of this range of samples go out, and ``output0`` [T, B, N] where it is rebuilt.
    """
    names = [n for n in _numbers(plan, plan.inputs) if not n.startswith(("current", "state", "history"))]
    names += _laid_out(plan)
    names += [n for n in plan.results if n.startswith("saved")]
    names += [f"d_{n}" for n in plan.differentiable]
    for i, cell in enumerate(plan.cells):
        names += [f"state{i}.{s}" for s in cell.derivative.restored]
        timed = any(k.timed for _, k in plan.out_of(i))
        names += [f"output{i}"] if timed or (plan.sends(i) and cell.derivative.rebuilt) else []
        names += [f"d_current{i}", *(f"d_state{i}.{s}" for s in cell.program.states)]
        names += [f"d_value{i}.{p}" for p in cell.learned]
    for j, link in enumerate(plan.links):
        names += [f"d_gains{j}"] if link.timed else []
        names += [f"d_product{j}"] if link.dendritic else []
        names += [f"product{j}", f"d_shares{j}"] if link.retimed else []
    return _plain(names)


def _numbers(plan: Plan, names: Iterable[str]) -> list[str]:
    """Those of ``names`` that a kernel takes as they are: of pairs' not, which :func:`_laid_out` names."""
    other = {f"{n}{j}" for j, link in enumerate(plan.links) if link.pairs for n in ("amounts", "offsets")}
    return [n for n in names if n not in other]


def _laid_out(plan: Plan) -> list[str]:
    """Weights as kernels go through them: ``transposed0`` [N_source, N_target], or ``spread0`` and ``ahead0``
    [N_source, M, N_target], what the pairs of a source receive and after how many steps.
    """
    by_link = [[f"spread{j}", f"ahead{j}"] if k.pairs else [f"transposed{j}"] for j, k in enumerate(plan.links)]
    return [name for names in by_link for name in names]


def _plain(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(n.replace(".", "_") for n in names)


def _forward(plan: Plan) -> str:
    w = _Text(f"def forward(first, last, tile, {', '.join(forward_arguments(plan))}):")
    w("count = last - first", "steps = current0.shape[0]")
    for i, cell in enumerate(plan.cells):
        w(f"size{i} = current{i}.shape[2]", f"total{i} = np.empty((tile * count, size{i}), F)")
        for s in cell.program.states:
            w(f"now{i}_{s} = state{i}_{s}[first:last].copy()")
    for j, link in enumerate(plan.links):
        if link.pairs:
            w(f"ring{j} = np.zeros((count, ring_length(ahead{j}, tile), size{link.target}), F)")
            continue
        w(
            f"sent{j} = np.empty((tile * count, size{link.source} // {link.sources}), F)",
            f"index{j} = np.empty(size{link.source} // {link.sources}, np.int64)",
        )
        if link.targets > 1:
            w(f"made{j} = np.empty((tile * count, size{link.target} // {link.targets}), F)")
        if link.axonal:
            w(f"line{j} = np.zeros((count, ring_length(offsets{j}, tile), size{link.source}), F)")
        if link.dendritic:
            w(
                f"late{j} = {_ring(f'lags{j}', link.target)}",
                f"turn{j} = np.empty((size{link.target}, count), F)",
                f"made{j} = np.empty((tile * count, size{link.target}), F)",
            )
    w.block("for start in range(0, steps, tile):")
    w("ahead = min(tile, steps - start)")
    for i in plan.order:
        cell = plan.cells[i]
        w.block("for k in range(ahead):")
        w(f"gather(total{i}, k * count, current{i}[start + k, first:last])")
        w.end()
        for j, link in plan.into(i):
            if link.pairs:
                w.block("for k in range(ahead):")
                w(f"take_ring(total{i}, k * count, ring{j}, start + k)")
                w.end()
            else:
                _forward_link(w, plan, i, j)
        w.block("for k in range(ahead):").block("for b in range(count):")
        arrays = [f"total{i}[k * count + b]", *(f"now{i}_{s}[b]" for s in cell.program.states)]
        arrays += [f"output{i}[start + k, first + b]", *(f"saved{i}_{s}[start + k, first + b]" for s in plan.saved(i))]
        w(f"forward{i}({', '.join([f'size{i}', *arrays, *(f'value{i}_{p}' for p in cell.program.params)])})")
        w.end()
        for s in cell.program.states if plan.keep_states else ():
            w(f"gather(states{i}_{s}[start + k], first, now{i}_{s})")
        w.end()
        for j, link in plan.out_of(i):
            if not (link.pairs or link.axonal):
                continue
            sent = f"output{i}[start + k, first:last]"
            w.block("for k in range(ahead):")
            if link.pairs:
                sent += f" * mask{j}[first:last]" if link.masked else ""
                w(f"send_pairs(ring{j}, {sent}, 0, start + k, spread{j}, ahead{j})")
            else:
                w(f"send_taps(line{j}, {sent}, start + k, steps, offsets{j}, gains{j})")
            w.end()
    w.end()
    for i, cell in enumerate(plan.cells):
        for s in cell.program.states if not plan.keep_states else ():
            w(f"states{i}_{s}[0, first:last] = now{i}_{s}")
    return "\n".join(w.lines)


def _ring(delays: str, cell: int) -> str:
    return f"np.empty((ring_length({delays}, tile), size{cell}, count), F)"


def _forward_link(w: _Text, plan: Plan, i: int, j: int) -> None:
    """Add what arrives over link ``j`` to the rows of its target ``i``: what was sent, a product, and, with dendritic
    delays, the products of the steps before.
    """
    link = plan.links[j]
    source = link.source
    w.block("for k in range(ahead):")
    if link.axonal:
        w(f"move_ring(sent{j}, k * count, line{j}, start + k)")
    else:
        w(f"t = start + k - {link.delay}")
        if link.delay:
            w.block("if t < 0:")
            if link.delayed:
                w(f"clear(sent{j}[k * count:(k + 1) * count])")
            else:
                w(_sent(link, j, f"history{source}[history{source}.shape[0] + t, first:last]"))
            w.end()
            w.block("else:")
        w(_sent(link, j, f"output{source}[t, first:last]"))
        w.end(bool(link.delay))
    if link.masked and link.sources == 1:
        w(f"scale(sent{j}, k * count, mask{j}[first:last])")
    if link.axonal and link.learned:
        w(f"gather(passed{j}[start + k], first, sent{j}[k * count:(k + 1) * count])")
    w.end()
    if link.targets > 1:
        w(f"clear(made{j}[:ahead * count])")
        w(f"add_product(made{j}[:ahead * count], sent{j}[:ahead * count], transposed{j}, index{j})")
        w(f"spread{link.targets}(total{i}[:ahead * count], made{j}[:ahead * count])")
        return
    if not link.dendritic:
        w(f"add_product(total{i}[:ahead * count], sent{j}[:ahead * count], transposed{j}, index{j})")
        return
    w(f"clear(made{j}[:ahead * count])")
    w(f"add_product(made{j}[:ahead * count], sent{j}[:ahead * count], transposed{j}, index{j})")
    w.block("for k in range(ahead):")
    w(f"put_ring(late{j}, made{j}[k * count:(k + 1) * count], start + k)")
    w(f"read_ring(total{i}, k * count, turn{j}, late{j}, start + k, steps, -1, lags{j}, shares{j})")
    if link.retimed:
        w(f"gather(product{j}[start + k], first, made{j}[k * count:(k + 1) * count])")
    w.end()


def _sent(link: LinkPlan, j: int, rows: str) -> str:
    if link.sources == 1:
        return f"gather(sent{j}, k * count, {rows})"
    rows += f" * mask{j}[first:last]" if link.masked else ""
    return f"sums{link.sources}(sent{j}, k * count, {rows})"


def _backward(plan: Plan) -> str:
    w = _Text(f"def backward(first, last, tile, {', '.join(backward_arguments(plan))}):")
    w("count = last - first", "steps = d_current0.shape[0]")
    for i, cell in enumerate(plan.cells):
        w(f"size{i} = d_current{i}.shape[2]", f"total{i} = np.empty((tile * count, size{i}), F)")
        for s in cell.derivative.restored:
            w(f"restored{i}_{s} = np.empty((count, size{i}), F)")
        if plan.sends(i):
            w(f"part{i} = np.empty((tile * count, size{i}), F)", f"gate{i}_rows = np.ones((tile * count, size{i}), F)")
        for s in cell.program.states:
            start = f"np.zeros((count, size{i}), F)" if plan.keep_states else f"d_states{i}_{s}[0, first:last].copy()"
            w(f"carry{i}_{s} = {start}")
    for j, link in enumerate(plan.links):
        if link.pairs:
            w(f"ring{j} = np.zeros((ring_length(ahead{j}, tile), size{link.target}, ring_samples(count)), F)")
            continue
        w(
            f"back{j} = np.empty((tile * count, size{link.target} // {link.targets}), F)",
            f"index{j} = np.empty(size{link.target} // {link.targets}, np.int64)",
        )
        if link.sources > 1:
            w(f"some{j} = np.empty((tile * count, size{link.source} // {link.sources}), F)")
        if link.axonal:
            w(f"line{j} = {_ring(f'offsets{j}', link.source)}", f"turn{j} = np.empty((size{link.source}, count), F)")
            w(f"back_sent{j} = np.empty((tile * count, size{link.source}), F)")
        if link.dendritic:
            w(f"late{j} = {_ring(f'lags{j}', link.target)}", f"turned{j} = np.empty((size{link.target}, count), F)")
    w.block("for back in range((steps + tile - 1) // tile):")
    w("start = ((steps + tile - 1) // tile - 1 - back) * tile", "ahead = min(tile, steps - start)")
    for i in reversed(plan.order):
        cell = plan.cells[i]
        saved = [f"saved{i}_{s}[start + k, first + b]" for s in plan.saved(i)]
        values = [f"value{i}_{p}" for p in cell.program.params]
        w.block("for k in range(ahead):")
        w(f"gather(total{i}, k * count, d_output{i}[start + k, first:last])")
        w.end()
        if _gated(plan, i):
            w.block("for k in range(ahead):").block("for b in range(count):")
            w(f"gate{i}({', '.join([f'size{i}', f'gate{i}_rows[k * count + b]', *saved, *values])})")
            w.end(2)
        for j, _ in plan.out_of(i):
            _backward_link(w, plan, i, j)
        w.block("for q in range(ahead):")
        w("k = ahead - 1 - q")
        for s in cell.program.states if plan.keep_states else ():
            w(f"add_rows(carry{i}_{s}, 0, d_states{i}_{s}[start + k, first:last])")
        restored = [f"restored{i}_{s}[b]" for s in cell.derivative.restored]
        if restored:
            w.block("if start + k == 0:")
            w(*(f"restored{i}_{s}[:] = state{i}_{s}[first:last]" for s in cell.derivative.restored))
            w.end()
            w.block("else:").block("for b in range(count):")
            before = [f"saved{i}_{s}[start + k - 1, first + b]" for s in plan.saved(i)]
            w(f"restore{i}({', '.join([f'size{i}', *restored, *before, *values])})")
            w.end(2)
        w.block("for b in range(count):")
        arrays = [f"total{i}[k * count + b]", *(f"carry{i}_{s}[b]" for s in cell.program.states)]
        arrays += [f"d_current{i}[start + k, first + b]", *saved, *restored]
        if plan.sends(i) and cell.derivative.rebuilt:
            arrays += [f"output{i}[start + k, first + b]"]
        arrays += [f"d_value{i}_{p}" for p in cell.learned]
        w(f"backward{i}({', '.join([f'size{i}', *arrays, *values])})")
        w.end(2)
        _delayed_backward(w, plan, i)
    w.end()
    for i, cell in enumerate(plan.cells):
        for s in cell.program.states:
            w(f"d_state{i}_{s}[first:last] = carry{i}_{s}")
    return "\n".join(w.lines)


def _backward_link(w: _Text, plan: Plan, i: int, j: int) -> None:
    """Add the gradient that comes back over link ``j`` to the rows of its source ``i``."""
    link = plan.links[j]
    if link.axonal:
        w.block("for k in range(ahead):")
        w(f"read_ring(total{i}, k * count, turn{j}, line{j}, start + k, steps, 1, offsets{j}, gains{j})")
        w.end()
        return
    into = f"part{i}" if link.masked else f"total{i}"
    w(f"reached = {'ahead' if link.pairs else f'min(ahead, steps - {link.delay} - start)'}")
    w.block("if reached > 0:")
    if link.masked:
        w(f"clear(part{i}[:reached * count])")
    if link.pairs:
        w.block("for k in range(reached):")
        w(f"read_pairs({into}, gate{i}_rows, k * count, count, ring{j}, start + k, spread{j}, ahead{j})")
        w.end()
    else:
        back = f"d_product{j}" if link.dendritic else f"d_current{link.target}"
        w.block("for k in range(reached):")
        rows = f"{back}[start + k + {link.delay}, first:last]"
        w(
            f"gather(back{j}, k * count, {rows})"
            if link.targets == 1
            else f"sums{link.targets}(back{j}, k * count, {rows})"
        )
        w.end()
        rows = f"back{j}[:reached * count], weight{j}"
        if link.sources > 1:
            w(f"clear(some{j}[:reached * count])")
            w(f"add_product(some{j}[:reached * count], {rows}, index{j})")
            w(f"spread{link.sources}({into}[:reached * count], some{j}[:reached * count])")
        elif _gated(plan, i):
            w(f"add_product_where({into}[:reached * count], gate{i}_rows[:reached * count], {rows}, transposed{j})")
        else:
            w(f"add_product({into}[:reached * count], {rows}, index{j})")
    if link.masked:
        w.block("for k in range(reached):")
        w(f"scale(part{i}, k * count, mask{j}[first:last])")
        w(f"add_rows(total{i}, k * count, part{i}[k * count:(k + 1) * count])")
        w.end()
    w.end()


def _delayed_backward(w: _Text, plan: Plan, i: int) -> None:
    """What follows for links with delays once a block of cell ``i`` is done: for those into it the gradient of what
    left and of what arrived at their weights, for those out of it that of their gains.
    """
    for j, link in plan.into(i):
        if link.pairs or link.dendritic:
            w.block("for k in range(ahead):")
            w(f"put_ring({'ring' if link.pairs else 'late'}{j}, d_current{i}[start + k, first:last], start + k)")
            w.end()
        if not (link.dendritic or link.axonal):
            continue
        w.block("for k in range(ahead):")
        if link.dendritic:
            w(f"clear(back{j}[k * count:(k + 1) * count])")
            w(f"read_ring(back{j}, k * count, turned{j}, late{j}, start + k, steps, 1, lags{j}, shares{j})")
            w(f"gather(d_product{j}[start + k], first, back{j}[k * count:(k + 1) * count])")
        else:
            w(f"gather(back{j}, k * count, d_current{i}[start + k, first:last])")
        if link.retimed:
            w(f"add_gains(d_shares{j}, late{j}, product{j}[start + k, first:last], start + k, steps, lags{j})")
        w.end()
        if link.axonal:
            w(f"clear(back_sent{j}[:ahead * count])")
            w(f"add_product(back_sent{j}[:ahead * count], back{j}[:ahead * count], weight{j}, index{j})")
            w.block("for k in range(ahead):")
            if link.masked:
                w(f"scale(back_sent{j}, k * count, mask{j}[first:last])")
            w(f"put_ring(line{j}, back_sent{j}[k * count:(k + 1) * count], start + k)")
            w.end()
    for j, link in plan.out_of(i):
        if link.timed:
            w.block("for k in range(ahead):")
            w(f"add_gains(d_gains{j}, line{j}, output{i}[start + k, first:last], start + k, steps, offsets{j})")
            w.end()

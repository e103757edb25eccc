"""Printing linked cells as one pair of triton kernels: the time loop forward and the time loop backward.

Tensor cores multiply bfloat16. A float32 is exactly the sum of three bfloat16 (8 of its 24 bits each), and a spike, 0
or 1, is one itself. So spikes times float32 weights are three products whose terms are exact and whose sums are
float32. Where the other factor is no spike (gradients on their way back, outputs under a dropout mask) it is in three
pieces too, and those six of the nine products are taken that float32 can tell from 0. Triton's interpreter knows no
bfloat16 product; there the same pieces are float32.

What is sent over a link stays in registers where the weights do; else, and over delays of more than a step, it goes
through a ring of the last steps in memory, ``ring0`` [slots, B, N_source], padded. Axonal and dendritic delays are read
from sequences of all steps, which the kernel writes as it goes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from ..derivative import OUTPUT_GRADIENT, gradient_name
from ..program import Arg, Op, prune
from .plan import LinkPlan
from .triton_loop import ROWS, Loop
from .triton_source import Text, Values, head


def loop_source(loop: Loop) -> str:
    """A module with ``forward`` and, if the plan has gradients, ``backward``. What they take is said by
    :meth:`Loop.forward_names` and :meth:`Loop.backward_names`.
    """
    text = head()
    text("", "", "@triton.jit")
    text.block("def top(x):")
    text("return (x.to(tl.int32, bitcast=True) & -65536).to(tl.float32, bitcast=True)")
    _Printer(loop, text, backward=False).forward()
    if loop.plan.gradients:
        _Printer(loop, text, backward=True).backward()
    return str(text)


class _Printer:
    """Prints one of the two kernels."""

    def __init__(self, loop: Loop, text: Text, backward: bool) -> None:
        self.loop, self.plan, self.text, self.back = loop, loop.plan, text, backward
        self.values = [Values(f"x{i}_", "float32", [ROWS, w]) for i, w in enumerate(loop.wide)]

    # -- what both have -----------------------------------------------------------------------------

    def _ends(self, link: LinkPlan) -> tuple[int, int]:
        """The cells that a link's product comes from and goes to: backward, from the target to the source."""
        return (link.target, link.source) if self.back else (link.source, link.target)

    def _pieces(self, link: LinkPlan) -> int:
        return 3 if self.back else self.loop.sent_pieces(link)

    def _start(self, names: Sequence[str]) -> None:
        text, loop = self.text, self.loop
        way, numbers = "backward" if self.back else "forward", loop.numbers()
        text.kernel(f"def {way}(T, B, {', '.join([*numbers, *names])}):", numbers)
        self._literals_at = len(text.lines)
        text(f"rows = tl.program_id(0) * {ROWS} + tl.arange(0, {ROWS})[:, None]", "live = rows < B")
        for i, (size, wide) in enumerate(zip(loop.sizes, loop.wide, strict=True)):
            text(
                f"n{i} = tl.arange(0, {wide})[None, :]",
                f"in{i} = live & (n{i} < {size})",
                f"at{i} = rows.to(tl.int64) * {size} + n{i}",
            )
        for j, link in enumerate(self.plan.links):
            a, b = self._ends(link)
            if loop.resident(self.back):
                text(f"k{j} = tl.arange(0, {loop.wide[a]})[:, None]")
                for q in range(loop.weight_pieces):
                    place = f"{q * loop.wide[a] * loop.wide[b]} + k{j} * {loop.wide[b]} + n{b}"
                    text(f"w{j}_{q} = tl.load(weight{j} + {place})")
            if j in loop.rings(self.back):
                text(f"plane{j} = tl.num_programs(0).to(tl.int64) * {ROWS * loop.wide[a]}")
            if loop.resident(self.back) and link.delay and not link.axonal:
                self._first(j, link)

    def _end(self) -> None:
        """Define the literals, which are known only now, where the kernel begins."""
        self.text.lines[self._literals_at : self._literals_at] = [f"    {v}" for x in self.values for v in x.literals()]

    def _first(self, j: int, link: LinkPlan) -> None:
        """What a link that stays in registers sends in the first step that is run."""
        if self.back or link.delayed:
            wide = self.loop.wide[self._ends(link)[0]]
            zero = f"tl.zeros(({ROWS}, {wide}), tl.{self.loop.part})"
            self.text(*(f"sent{j}_{p} = {zero}" for p in range(self._pieces(link))))
        else:
            self.text(f"sent{j} = tl.load({self._ring(j, link, f'{self.loop.slots(link) - 1}')})")
            self._cut(f"sent{j}", f"sent{j}", self._pieces(link))

    def _ring(self, j: int, link: LinkPlan, slot: str, columns: str = "") -> str:
        """Where what was sent lies, all columns of it or some."""
        a = self._ends(link)[0]
        return f"ring{j} + ({slot}) * plane{j} + rows * {self.loop.wide[a]} + {columns or f'n{a}'}"

    def _cut(self, value: str, name: str, pieces: int) -> None:
        """Cut ``value`` into pieces that a tensor core takes, ``name_0`` and so on."""
        text, part = self.text, self.loop.part
        for p in range(pieces - 1):
            text(f"{name}_top = top({value})", f"{name}_{p} = {name}_top.to(tl.{part})")
            text(f"{name}_rest = {value} - {name}_top")
            value = f"{name}_rest"
        text(f"{name}_{pieces - 1} = {value}.to(tl.{part})")

    def _masked(self, j: int, link: LinkPlan) -> str:
        return f" * tl.load(mask{j} + at{link.source}, mask=in{link.source}, other=0.0)" if link.masked else ""

    def _away(self, name: str, j: int, i: int, axonal: bool, sequence: str) -> str:
        """``name``: the sums of what ``sequence`` [T, B, N], of cell ``i``, held some steps before; backward, what it
        holds some steps after.
        """
        text, size, wide = self.text, self.loop.sizes[i], self.loop.wide[i]
        count, offsets, gains = (n + str(j) for n in (("K", "offsets", "gains") if axonal else ("L", "lags", "shares")))
        text("tl.debug_barrier()  # what the other threads have put there")
        text(f"{name} = tl.zeros(({ROWS}, {wide}), tl.float32)")
        text.block(f"for k_{name} in range({count}):")
        for part, tensor in (("away", offsets), ("gain", gains)):
            text(f"{part}_{name} = tl.load({tensor} + k_{name} * {size} + n{i}, mask=n{i} < {size}, other=0)")
        text(
            f"step_{name} = t {'+' if self.back else '-'} away_{name}",
            f"there_{name} = in{i} & (step_{name} {'< T' if self.back else '>= 0'})",
            f"value_{name} = tl.load({sequence} + step_{name}.to(tl.int64) * B * {size} + at{i}, mask=there_{name}, "
            "other=0.0)",
            f"{name} += gain_{name} * value_{name}",
        )
        text.depth -= 1
        return name

    def _put(self, sequence: str, i: int, value: str) -> None:
        """Put ``value`` at the place of this step in a sequence of cell ``i``."""
        self.text(f"tl.store({sequence} + row * {self.loop.sizes[i]} + at{i}, {value}, mask=in{i})")

    def _arriving(self, j: int, link: LinkPlan) -> str:
        """Forward, what arrives over link ``j``: the name of it."""
        if link.axonal:
            sent = self._away(f"sent{j}", j, link.source, True, f"output{link.source}")
            if link.masked:
                self.text(f"{sent} = {sent}{self._masked(j, link)}")
            if link.learned or not self.loop.resident(self.back):
                self._put(f"passed{j}", link.source, sent)
            if self.loop.resident(self.back):
                self._cut(sent, sent, self._pieces(link))
        found = self._product(j, link)
        if not link.dendritic:
            return found
        self._put(f"product{j}", link.target, found)
        return self._away(f"late_{found}", j, link.target, False, f"product{j}")

    def _returning(self, j: int, link: LinkPlan) -> str:
        """Backward, what comes back over link ``j``."""
        if link.axonal:
            return self._away(f"came{j}", j, link.source, True, f"line{j}")
        return self._product(j, link) + self._masked(j, link)

    def _send_back(self, j: int, link: LinkPlan, value: str) -> None:
        """Put ``value``, the gradient of the current that link ``j`` is a part of, where what comes back is found."""
        if f"late{j}" in self.loop.sequences(True):
            self._put(f"late{j}", link.target, value)
        if link.dendritic:
            value = self._away(f"made{j}", j, link.target, False, f"late{j}")
            self._put(f"d_product{j}", link.target, value)
        if not link.axonal:
            self._send(j, link, value)
            return
        if self.loop.resident(self.back):
            self.text(f"sent{j} = tl.where(in{link.target}, {value}, 0.0)")
            self._cut(f"sent{j}", f"sent{j}", self._pieces(link))
        self._put(f"line{j}", link.source, self._product(j, link) + self._masked(j, link))

    def _send(self, j: int, link: LinkPlan, value: str) -> None:
        """Put ``value`` where the product of link ``j`` finds it."""
        a = self._ends(link)[0]
        masked = self._masked(j, link) if not self.back else ""
        self.text(f"sent{j} = tl.where(in{a}, {value}, 0.0){masked}")
        if self.loop.resident(self.back):
            self._cut(f"sent{j}", f"sent{j}", self._pieces(link))
        else:
            self.text(f"tl.store({self._ring(j, link, f't % {self.loop.slots(link)}')}, sent{j})")

    def _product(self, j: int, link: LinkPlan) -> str:
        """What link ``j`` sent times its weights: the name of it."""
        text, loop = self.text, self.loop
        a, b = self._ends(link)
        pieces, weights = range(self._pieces(link)), range(loop.weight_pieces)
        pairs = sorted(((p, q) for p in pieces for q in weights if p + q < 3), key=sum, reverse=True)
        text(f"sum{j} = tl.zeros(({ROWS}, {loop.wide[b]}), tl.float32)")
        if loop.resident(self.back):
            sent = f"before{j}" if link.delay and not link.axonal else f"sent{j}"
            text(*(f'sum{j} = tl.dot({sent}_{p}, w{j}_{q}, sum{j}, input_precision="ieee")' for p, q in pairs))
            return f"sum{j}"
        wide, slots = loop.wide[a], loop.slots(link)
        slot = f"(t + {link.delay if self.back else slots - link.delay}) % {slots}"
        step = min(wide, loop.chunk)
        text("tl.debug_barrier()")  # what the other threads have put into the ring
        # a bound that ptxas cannot know, or it unrolls the loop until registers spill
        text.block(f"for k{j} in tl.range(0, tl.where(B > 0, {wide}, 0), {step}, num_stages=3):")
        text(f"across{j} = k{j} + tl.arange(0, {step})[None, :]", f"down{j} = k{j} + tl.arange(0, {step})[:, None]")
        if link.axonal:
            sequence, size = self._of_axonal(j, link), loop.sizes[a]
            place = f"{sequence} + (row + rows) * {size} + across{j}"
            text(f"a{j} = tl.load({place}, mask=live & (across{j} < {size}), other=0.0)")
        else:
            text(f"a{j} = tl.load({self._ring(j, link, slot, f'across{j}')})")
        for q in weights:
            text(f"b{j}_{q} = tl.load(weight{j} + {q * wide * loop.wide[b]} + down{j} * {loop.wide[b]} + n{b})")
        self._cut(f"a{j}", f"a{j}", len(pieces))
        text(*(f'sum{j} = tl.dot(a{j}_{p}, b{j}_{q}, sum{j}, input_precision="ieee")' for p, q in pairs))
        text.depth -= 1
        return f"sum{j}"

    def _of_axonal(self, j: int, link: LinkPlan) -> str:
        """The sequence in which a streamed product of link ``j`` finds this step's values."""
        if not self.back:
            return f"passed{j}"
        return f"d_product{j}" if link.dendritic else f"late{j}"

    def _turn(self) -> None:
        """Begin a step: what was sent in the one before is what arrives now, whichever cell comes first."""
        for j, link in enumerate(self.plan.links):
            if self.loop.resident(self.back) and link.delay and not link.axonal:
                self.text(*(f"before{j}_{p} = sent{j}_{p}" for p in range(self._pieces(link))))

    def _places(self, i: int) -> dict[str, str]:
        """Where the values of a cell's step lie that are neither states nor computed."""
        program, size = self.plan.cells[i].program, self.loop.sizes[i]
        step = f"row * {size} + at{i}, mask=in{i}, other=0.0"
        # all in one tensor, so that they need one address: one each, kept over all steps, would fill the registers
        places = {p: f"values{i} + n{i} + {q * self.loop.wide[i]}" for q, p in enumerate(program.params)}
        if not self.back:
            return {**places, "current": f"current{i} + {step}"}
        places |= {s: f"saved{i}_{s} + {step}" for s in self.plan.saved(i)}
        return {**places, OUTPUT_GRADIENT: f"d_output{i} + {step}"}

    def _load(self, i: int, names: Iterable[str]) -> None:
        places = self._places(i)
        self.text(*(f"x{i}_{n} = tl.load({places[n]})" for n in names))

    def _early(self) -> None:
        """Load what comes from outside the stage before the products are taken, if there are registers for it."""
        for i in self.plan.order if self.loop.resident(self.back) else ():
            self._load(i, [n for n in self._places(i) if n not in self.plan.cells[i].program.params])

    def _cell(
        self,
        i: int,
        ops: Iterable[Op],
        results: Iterable[Arg],
        arrived: str,
        sums: Sequence[str],
        stores: Iterable[tuple[Arg, str]],
    ) -> None:
        """The operations of a cell's step. ``stores`` are values and the tensors that they go into. Registers are few:
        values are loaded where they are first needed and stored where they are first known.
        """
        x, text, places = self.values[i], self.text, self._places(i)
        early = self.loop.resident(self.back)
        at_hand = {n for n in places if early and n not in self.plan.cells[i].program.params}

        def need(args: Iterable[Arg]) -> None:
            for n in args:
                if isinstance(n, str) and n in places and n not in at_hand:
                    self._load(i, [n])
                    at_hand.add(n)

        left = list(stores)

        def store(known: Callable[[Arg], bool]) -> None:
            for value, tensor in [v for v in left if known(v[0])]:
                text(f"tl.store({tensor} + row * {self.loop.sizes[i]} + at{i}, {x.whole(value)}, mask=in{i})")
                left.remove((value, tensor))

        states = [gradient_name(s) if self.back else s for s in self.plan.cells[i].program.states]
        store(lambda value: value in states)
        need([arrived])
        text(f"{x(arrived)} = {' + '.join([x(arrived), *sums])}")
        store(lambda value: value == arrived)
        for op in ops:
            need(op.args)
            text(x.statement(op))
            store(lambda value, name=op.name: value == name)
        need(results)
        store(lambda value: True)

    # -- the two kernels ----------------------------------------------------------------------------

    def forward(self) -> None:
        text, plan, loop = self.text, self.plan, self.loop
        self._start(loop.forward_names())
        for i, cell in enumerate(plan.cells):
            text(*(f"r{i}_{s} = tl.load(state{i}_{s} + at{i}, mask=in{i}, other=0.0)" for s in cell.program.states))
        text("row = tl.zeros((), tl.int64)")
        text.block("for t in range(T):")
        self._turn()
        self._early()
        for i in plan.order:
            program, x = plan.cells[i].program, self.values[i]
            results = (*program.next_state.values(), program.output)
            stores = [(program.output, f"output{i}"), *((n, f"saved{i}_{n}") for n in plan.saved(i))]
            stores += [(v, f"states{i}_{s}") for s, v in program.next_state.items() if plan.keep_states]
            sums = [self._arriving(j, link) for j, link in plan.into(i)]
            text(*(f"x{i}_{s} = r{i}_{s}" for s in program.states))
            self._cell(i, program.ops, results, "current", sums, stores)
            text(*(f"r{i}_{s} = {x.whole(v)}" for s, v in program.next_state.items()))
            for j, link in plan.out_of(i):
                if not link.axonal:
                    self._send(j, link, x.whole(program.output))
        text("row += B")
        text.depth -= 1
        for i, cell in enumerate(plan.cells) if not plan.keep_states else ():
            text(*(f"tl.store(states{i}_{s} + at{i}, r{i}_{s}, mask=in{i})" for s in cell.program.states))
        self._end()

    def backward(self) -> None:
        text, plan, loop = self.text, self.plan, self.loop
        self._start(loop.backward_names())
        for i, cell in enumerate(plan.cells):
            for s in cell.program.states:
                if plan.keep_states:
                    text(f"r{i}_{s} = tl.zeros(({ROWS}, {loop.wide[i]}), tl.float32)")
                else:
                    text(f"r{i}_{s} = tl.load(d_states{i}_{s} + at{i}, mask=in{i}, other=0.0)")
        text("row = (tl.zeros((), tl.int64) + T - 1) * B")
        text.block("for back in range(T):")
        text("t = T - 1 - back")
        self._turn()
        self._early()
        for i in reversed(plan.order):
            cell, x, size = plan.cells[i], self.values[i], loop.sizes[i]
            program, gradients = cell.program, cell.derivative.gradients
            results = [gradients["current"], *(gradients[s] for s in program.states)]
            sums = [self._returning(j, link) for j, link in plan.out_of(i)]
            for s in program.states:
                arrived = f" + tl.load(d_states{i}_{s} + row * {size} + at{i}, mask=in{i}, other=0.0)"
                text(f"x{i}_{gradient_name(s)} = r{i}_{s}{arrived if plan.keep_states else ''}")
            # the parameters' gradients are left to the cell's own kernel
            stores = [(OUTPUT_GRADIENT if cell.learned else results[0], f"d_current{i}")]
            self._cell(i, prune(cell.derivative.ops, results), results, OUTPUT_GRADIENT, sums, stores)
            text(*(f"r{i}_{s} = {x.whole(v)}" for s, v in zip(program.states, results[1:], strict=True)))
            for j, link in plan.into(i):
                self._send_back(j, link, x.whole(results[0]))
        text("row -= B")
        text.depth -= 1
        for i, cell in enumerate(plan.cells):
            text(*(f"tl.store(d_state{i}_{s} + at{i}, r{i}_{s}, mask=in{i})" for s in cell.program.states))
        self._end()

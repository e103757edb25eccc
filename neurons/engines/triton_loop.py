"""Printing linked cells as one pair of triton kernels: a program has 16 samples and runs all steps, products included.

Tensor cores multiply bfloat16. A float32 is exactly the sum of three bfloat16 (8 of its 24 bits each), and a spike, 0
or 1, is one itself. So spikes times float32 weights are three products whose terms are exact and whose sums are
float32. Where the other factor is no spike (gradients on their way back, outputs under a dropout mask) it is in three
pieces too, and those six of the nine products are taken that float32 can tell from 0. Triton's interpreter knows no
bfloat16 product; there the same pieces are float32.

Where all weights and states fit into the registers of a processor, they stay there for all steps; else each product
streams the weights from the L2 cache, some rows at a time.

What is sent over a link stays in registers if it is used in this step or the next and the weights are there too. Else
it goes through a ring of the last steps in memory, ``ring0`` [slots, B, N_source], padded.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from ..derivative import OUTPUT_GRADIENT, gradient_name
from ..program import Arg, Op, prune
from .plan import LinkPlan, Plan
from .triton_source import Text, Values, head

ROWS = 16
"""Samples of a program: the fewest that a tensor core multiplies."""
REGISTERS = 208 * 1024
"""Bytes of a processor's 256 KiB of registers that states and gradients may take."""
RESIDENT = 208 * 1024
"""Bytes of them that states, gradients and weights may take; beyond, the weights are streamed."""
CHUNK = 32
"""Rows of a streamed weight that are multiplied at a time."""
LARGEST = 2**17
"""Weights of a stage, padded, up to which one program steps it: beyond, a product of all samples at once is better."""


def padded(size: int) -> int:
    """A power of 2, 16 at least: the shape of a block."""
    return max(16, 1 << (size - 1).bit_length())


@dataclass(frozen=True)
class Loop:
    """A stage's plan with the sizes of its cells. ``exact``: float32 weights; else they are rounded to bfloat16."""

    plan: Plan
    sizes: tuple[int, ...]
    exact: bool
    part: str = "bfloat16"

    @cached_property
    def wide(self) -> tuple[int, ...]:
        return tuple(map(padded, self.sizes))

    @property
    def weight_pieces(self) -> int:
        return 3 if self.exact else 1

    def sent_pieces(self, link: LinkPlan) -> int:
        """In how many pieces a source's outputs go into the product of a link."""
        return 1 if self.plan.cells[link.source].program.output_kind == "binary" and not link.masked else 3

    def slots(self, link: LinkPlan) -> int:
        """Steps in the ring of a link: one more than needed, so that a thread a step ahead overwrites nothing."""
        return link.delay + 2

    def _weights(self) -> int:
        return sum(self.wide[k.source] * self.wide[k.target] for k in self.plan.links)

    def _tiles(self, backward: bool) -> int:
        """Bytes of what a program has in registers beside the weights, roughly."""
        tiles = 0
        for i, cell in enumerate(self.plan.cells):
            count = len(cell.program.states) + (len(self.plan.saved(i)) + 5 if backward else 4)
            tiles += count * self.wide[i]
        tiles += sum(self.wide[k.source] for k in self.plan.links if k.masked)
        return tiles * ROWS * 4

    def resident(self, backward: bool) -> bool:
        """Whether the weights stay in registers."""
        return self._tiles(backward) + 2 * self.weight_pieces * self._weights() <= RESIDENT

    @property
    def fits(self) -> bool:
        """Whether one program can step the stage."""
        return self._weights() <= LARGEST and self._tiles(backward=self.plan.gradients) <= REGISTERS

    @property
    def warps(self) -> int:
        return 8 if max(self.wide) > 64 else 4

    def in_registers(self, link: LinkPlan, backward: bool) -> bool:
        """Whether what a link sends stays in registers."""
        return self.resident(backward) and link.delay <= 1

    def rings(self, backward: bool) -> list[int]:
        """The links that have a ring. Forward, one that sends to the next step finds its first values there."""
        links = enumerate(self.plan.links)
        return [j for j, k in links if not self.in_registers(k, backward) or (k.delay == 1 and not backward)]

    def forward_names(self) -> list[str]:
        """What ``forward`` takes after T and B."""
        plan = self.plan
        names: list[str] = []
        for i, cell in enumerate(plan.cells):
            names += [f"current{i}", *(f"state{i}_{s}" for s in cell.program.states)]
            names += [f"values{i}"] if cell.program.params else []
        names += [f"weight{j}" for j in range(len(plan.links))]
        names += [f"mask{j}" for j, k in enumerate(plan.links) if k.masked]
        return [*names, *(n.replace(".", "_") for n in plan.results), *(f"ring{j}" for j in self.rings(False))]

    def backward_names(self) -> list[str]:
        """What ``backward`` takes after T and B. ``d_current0`` [T, B, N] receives, for a cell with learned parameters,
        the whole gradient of its output, from which :func:`.triton_source.cell_source` goes on.
        """
        plan = self.plan
        names = [f"d_{n}".replace(".", "_") for n in plan.differentiable]
        for i, cell in enumerate(plan.cells):
            names += [f"values{i}"] if cell.program.params else []
            names += [*(f"saved{i}_{s}" for s in plan.saved(i)), f"d_current{i}"]
            names += [f"d_state{i}_{s}" for s in cell.program.states]
        names += [f"weight{j}" for j in range(len(plan.links))]
        names += [f"mask{j}" for j, k in enumerate(plan.links) if k.masked]
        return [*names, *(f"ring{j}" for j in self.rings(True))]

    def source(self) -> str:
        """The module: ``forward`` and, if the plan has gradients, ``backward``. Both take weights as :mod:`.triton_gpu`
        lays them out: ``weight0`` [pieces, from, to], padded with zeros; backward, from the target to the source.
        """
        text = head()
        text("", "", "@triton.jit")
        text.block("def top(x):")
        text("return (x.to(tl.int32, bitcast=True) & -65536).to(tl.float32, bitcast=True)")
        _Printer(self, text, backward=False).forward()
        if self.plan.gradients:
            _Printer(self, text, backward=True).backward()
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
        text.kernel(f"def {'backward' if self.back else 'forward'}(T, B, {', '.join(names)}):")
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
            if link.masked:
                text(f"mask{j}_ = tl.load(mask{j} + at{link.source}, mask=in{link.source}, other=0.0)")
            if loop.resident(self.back):
                text(f"k{j} = tl.arange(0, {loop.wide[a]})[:, None]")
                for q in range(loop.weight_pieces):
                    place = f"{q * loop.wide[a] * loop.wide[b]} + k{j} * {loop.wide[b]} + n{b}"
                    text(f"w{j}_{q} = tl.load(weight{j} + {place})")
            if j in loop.rings(self.back):
                text(f"plane{j} = tl.num_programs(0).to(tl.int64) * {ROWS * loop.wide[a]}")
            if loop.in_registers(link, self.back) and link.delay == 1:
                self._first(j, link)

    def _end(self) -> None:
        """Define the literals, which are known only now, where the kernel begins."""
        self.text.lines[self._literals_at : self._literals_at] = [f"    {v}" for x in self.values for v in x.literals()]

    def _first(self, j: int, link: LinkPlan) -> None:
        """What a link that stays in registers sends in the first step that is run."""
        if self.back:
            wide = self.loop.wide[self._ends(link)[0]]
            zero = f"tl.zeros(({ROWS}, {wide}), tl.{self.loop.part})"
            self.text(*(f"sent{j}_{p} = {zero}" for p in range(self._pieces(link))))
        else:
            self.text(f"sent = tl.load({self._ring(j, link, f'{self.loop.slots(link) - 1}')})")
            self._cut("sent", f"sent{j}", self._pieces(link))

    def _ring(self, j: int, link: LinkPlan, slot: str, columns: str = "") -> str:
        """Where what was sent lies, all columns of it or some."""
        a = self._ends(link)[0]
        return f"ring{j} + ({slot}) * plane{j} + rows * {self.loop.wide[a]} + {columns or f'n{a}'}"

    def _cut(self, value: str, name: str, pieces: int) -> None:
        """Cut ``value`` into pieces that a tensor core takes, ``name_0`` and so on."""
        part = self.loop.part
        for p in range(pieces):
            last = p == pieces - 1
            source = value if p == 0 else "rest"
            self.text(f"piece = {source if last else f'top({source})'}", f"{name}_{p} = piece.to(tl.{part})")
            self.text(*([] if last else [f"rest = {source} - piece"]))

    def _send(self, j: int, link: LinkPlan, value: str) -> None:
        """Put ``value`` where the product of link ``j`` finds it."""
        a = self._ends(link)[0]
        masked = f" * mask{j}_" if link.masked and not self.back else ""
        self.text(f"sent = tl.where(in{a}, {value}, 0.0){masked}")
        if self.loop.in_registers(link, self.back):
            self._cut("sent", f"sent{j}", self._pieces(link))
        else:
            self.text(f"tl.store({self._ring(j, link, f't % {self.loop.slots(link)}')}, sent)")

    def _product(self, j: int, link: LinkPlan) -> str:
        """What link ``j`` sent times its weights: the name of it."""
        text, loop = self.text, self.loop
        a, b = self._ends(link)
        wide, sent = loop.wide[a], f"before{j}" if link.delay else f"sent{j}"
        pieces, weights = range(self._pieces(link)), range(loop.weight_pieces)
        pairs = sorted(((p, q) for p in pieces for q in weights if p + q < 3), key=sum, reverse=True)
        text(f"sum{j} = tl.zeros(({ROWS}, {loop.wide[b]}), tl.float32)")
        slots = loop.slots(link)
        slot = f"(t + {link.delay if self.back else slots - link.delay}) % {slots}"
        if not loop.in_registers(link, self.back):
            text("tl.debug_barrier()")  # what the other threads have put into the ring
        if loop.resident(self.back):
            if not loop.in_registers(link, self.back):
                text(f"sent = tl.load({self._ring(j, link, slot)})")
                self._cut("sent", sent, len(pieces))
            text(*(f'sum{j} = tl.dot({sent}_{p}, w{j}_{q}, sum{j}, input_precision="ieee")' for p, q in pairs))
            return f"sum{j}"
        step = min(wide, CHUNK)
        text.block(f"for k in tl.range(0, {wide}, {step}, num_stages=3):")
        text(f"across = k + tl.arange(0, {step})[None, :]", f"down = k + tl.arange(0, {step})[:, None]")
        text(f"sent = tl.load({self._ring(j, link, slot, 'across')})")
        for q in weights:
            text(f"b{q} = tl.load(weight{j} + {q * wide * loop.wide[b]} + down * {loop.wide[b]} + n{b})")
        self._cut("sent", "a", len(pieces))
        text(*(f'sum{j} = tl.dot(a_{p}, b{q}, sum{j}, input_precision="ieee")' for p, q in pairs))
        text.depth -= 1
        return f"sum{j}"

    def _turn(self) -> None:
        """Begin a step: what was sent in the one before is what arrives now, whichever cell comes first."""
        for j, link in enumerate(self.plan.links):
            if self.loop.in_registers(link, self.back) and link.delay == 1:
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
        saved: Sequence[str] = (),
    ) -> None:
        """The operations of a cell's step. Registers are few: values are loaded where they are first needed, and stored
        where they are first known if they are ``saved``.
        """
        x, text, places = self.values[i], self.text, self._places(i)
        early = self.loop.resident(self.back)
        at_hand = {n for n in places if early and n not in self.plan.cells[i].program.params}

        def need(args: Iterable[Arg]) -> None:
            for n in args:
                if isinstance(n, str) and n in places and n not in at_hand:
                    self._load(i, [n])
                    at_hand.add(n)

        def keep(names: Iterable[str]) -> None:
            place = f"row * {self.loop.sizes[i]} + at{i}"
            text(*(f"tl.store(saved{i}_{n} + {place}, {x(n)}, mask=in{i})" for n in names if n in saved))

        keep(self.plan.cells[i].program.states)
        need([arrived])
        text(f"{x(arrived)} = {' + '.join([x(arrived), *sums])}")
        keep([arrived])
        for op in ops:
            need(op.args)
            text(x.statement(op))
            keep([op.name])
        need(results)

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
            program, x, size = plan.cells[i].program, self.values[i], loop.sizes[i]
            saved = plan.saved(i)
            sums = [self._product(j, link) for j, link in plan.into(i)]
            text(*(f"x{i}_{s} = r{i}_{s}" for s in program.states))
            self._cell(i, program.ops, (*program.next_state.values(), program.output), "current", sums, saved)
            text(*(f"r{i}_{s} = {x.whole(v)}" for s, v in program.next_state.items()))
            text(
                f"out{i} = {x.whole(program.output)}", f"tl.store(output{i} + row * {size} + at{i}, out{i}, mask=in{i})"
            )
            for s in program.states if plan.keep_states else ():
                text(f"tl.store(states{i}_{s} + row * {size} + at{i}, r{i}_{s}, mask=in{i})")
            for j, link in plan.out_of(i):
                self._send(j, link, f"out{i}")
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
            sums = [self._product(j, link) + (f" * mask{j}_" if link.masked else "") for j, link in plan.out_of(i)]
            for s in program.states:
                arrived = f" + tl.load(d_states{i}_{s} + row * {size} + at{i}, mask=in{i}, other=0.0)"
                text(f"x{i}_{gradient_name(s)} = r{i}_{s}{arrived if plan.keep_states else ''}")
            # the parameters' gradients are left to the cell's own kernel
            self._cell(i, prune(cell.derivative.ops, results), results, OUTPUT_GRADIENT, sums)
            text(f"d{i} = {x.whole(results[0])}")
            text(*(f"r{i}_{s} = {x.whole(v)}" for s, v in zip(program.states, results[1:], strict=True)))
            kept = x(OUTPUT_GRADIENT) if cell.learned else f"d{i}"
            text(f"tl.store(d_current{i} + row * {size} + at{i}, {kept}, mask=in{i})")
            for j, link in plan.into(i):
                self._send(j, link, f"d{i}")
        text("row -= B")
        text.depth -= 1
        for i, cell in enumerate(plan.cells):
            text(*(f"tl.store(d_state{i}_{s} + at{i}, r{i}_{s}, mask=in{i})" for s in cell.program.states))
        self._end()

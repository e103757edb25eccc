"""How one triton kernel runs linked cells: the sizes of its blocks, and what of it fits into registers.

A program of the grid has 16 samples and runs all steps, with the products of spikes and weights inside. Where all
weights and states fit into the registers of a processor, they stay there for all steps; else each product streams the
weights from the L2 cache, some rows at a time. :mod:`.triton_loop_source` prints it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from .plan import LinkPlan, Plan

ROWS = 16
"""Samples of a program: the fewest that a tensor core multiplies."""
REGISTERS = 208 * 1024
"""Bytes of a processor's 256 KiB of registers that states and gradients may take, by a rough count."""
RESIDENT = 248 * 1024
"""Bytes of them that states, gradients and weights may take; beyond, the weights are streamed."""
ADDRESSES = 24 * 1024
"""Bytes of them for the addresses of one link's streamed weights."""
SHARED = {80: 163 * 1024, 86: 99 * 1024, 89: 99 * 1024, 90: 227 * 1024}
"""Bytes of shared memory that one program may have, by compute capability (CUDA C++ programming guide, technical
specifications per compute capability)."""
LARGEST = 2**17
"""Weights of a stage, padded, up to which one program steps it: beyond, a product of all samples at once is better."""


def padded(size: int) -> int:
    """A power of 2, 16 at least: the shape of a block."""
    return max(16, 1 << (size - 1).bit_length())


@dataclass(frozen=True)
class Loop:
    """A stage's plan with the sizes of its cells. ``exact``: float32 weights; else they are rounded to bfloat16.
    ``part``: the type of a product's operands. ``shared``: bytes of shared memory that a program may have.
    """

    plan: Plan
    sizes: tuple[int, ...]
    exact: bool
    part: str = "bfloat16"
    shared: int = SHARED[80]

    @cached_property
    def wide(self) -> tuple[int, ...]:
        return tuple(map(padded, self.sizes))

    @property
    def weight_pieces(self) -> int:
        return 3 if self.exact else 1

    def sent_pieces(self, link: LinkPlan) -> int:
        """In how many pieces a source's outputs go into the product of a link."""
        plain = not (link.masked or link.axonal)
        return 1 if self.plan.cells[link.source].program.output_kind == "binary" and plain else 3

    def slots(self, link: LinkPlan) -> int:
        """Steps in the ring of a link: one more than needed, so that a thread a step ahead overwrites nothing."""
        return link.delay + 2

    def _weights(self) -> int:
        return sum(self.wide[k.source] * self.wide[k.target] for k in self.plan.links)

    def _bytes(self, backward: bool, resident: bool) -> int:
        """What a program has in registers, roughly: the numbers of blocks were read from compiled kernels."""
        cells = range(len(self.plan.cells))
        saved = [len(self.plan.saved(i)) if backward else 0 for i in cells]
        size = sum(len(self.plan.cells[i].program.states) * self.wide[i] for i in cells)
        if not resident:
            size += max((saved[i] + 6) * self.wide[i] for i in cells)
            return size * ROWS * 4 + len(self.plan.links) * ADDRESSES
        size += sum((saved[i] + 1) * self.wide[i] for i in cells) + (11 if backward else 3) * max(self.wide)
        size += 2 * max(self.wide) if any(k.delayed for k in self.plan.links) else 0
        size += sum(self.wide[k.target if backward else k.source] * 2 for k in self.plan.links)
        return size * ROWS * 4 + 2 * self.weight_pieces * self._weights()

    def resident(self, backward: bool) -> bool:
        """Whether the weights stay in registers, and with them what is sent. On the way there they pass through shared
        memory, all of them.
        """
        fits = self._bytes(backward, resident=True) <= RESIDENT
        near = all(k.axonal or k.delay <= 1 for k in self.plan.links)
        return fits and self._copied(self._weights()) <= self.shared and near

    @property
    def chunk(self) -> int:
        """Rows of a streamed weight that are multiplied at a time, while those after them are on their way."""
        return 32 if self._copied(2 * 32 * max(self.wide)) + 2 * 32 * ROWS * 4 <= self.shared else 16

    def _copied(self, weights: int) -> int:
        """Bytes of shared memory for so many weights, roughly: their rows are padded."""
        return 2 * self.weight_pieces * weights * 9 // 8

    @property
    def fits(self) -> bool:
        """Whether one program can step the stage. A delay for every pair is better spread over the whole GPU."""
        smallest = self._copied(2 * 16 * max(self.wide)) + 2 * 16 * ROWS * 4
        return (
            not any(k.pairs for k in self.plan.links)
            and smallest <= self.shared
            and self._weights() <= LARGEST
            and self._bytes(self.plan.gradients, resident=False) <= REGISTERS
        )

    @property
    def warps(self) -> int:
        return 8 if max(self.wide) > 64 else 4

    def rings(self, backward: bool) -> list[int]:
        """The links that have a ring. A resident one that sends to the next step finds its first values there. What
        axonal and dendritic delays move is read from whole sequences.
        """
        if self.resident(backward):
            return [j for j, k in enumerate(self.plan.links) if k.delay and not (backward or k.delayed)]
        return [j for j, k in enumerate(self.plan.links) if not k.axonal]

    def numbers(self) -> list[str]:
        """What both kernels take after T and B: how many taps an axonal and a dendritic delay has."""
        links = list(enumerate(self.plan.links))
        return [f"K{j}" for j, k in links if k.axonal] + [f"L{j}" for j, k in links if k.dendritic]

    def _of_delays(self) -> list[str]:
        links = list(enumerate(self.plan.links))
        names = [f"{n}{j}" for j, k in links if k.axonal for n in ("offsets", "gains")]
        return names + [f"{n}{j}" for j, k in links if k.dendritic for n in ("lags", "shares")]

    def sequences(self, backward: bool) -> dict[str, int]:
        """What lies in memory for the whole sequence, [T, B, N] of a cell's N, beside the results: forward what axonal
        delays pass on, ``passed0``, and what dendritic ones take, ``product0``; backward the gradient of a target's
        current, ``late0``, of a product, ``d_product0``, and of what a source sent, ``line0``.
        """
        found: dict[str, int] = {}
        for j, link in enumerate(self.plan.links):
            if backward and link.delayed:
                found |= {f"late{j}": link.target} if link.dendritic or not self.resident(backward) else {}
                found |= {f"d_product{j}": link.target} if link.dendritic else {}
                found |= {f"line{j}": link.source} if link.axonal else {}
            elif link.delayed:
                found |= {f"passed{j}": link.source} if link.axonal and not self.resident(backward) else {}
                found |= {f"product{j}": link.target} if link.dendritic else {}
        return {n: i for n, i in found.items() if n not in self.plan.results}

    def forward_names(self) -> list[str]:
        """What ``forward`` takes after the numbers."""
        plan = self.plan
        names: list[str] = []
        for i, cell in enumerate(plan.cells):
            names += [f"current{i}", *(f"state{i}_{s}" for s in cell.program.states)]
            names += [f"values{i}"] if cell.program.params else []
        names += [f"weight{j}" for j in range(len(plan.links))]
        names += [f"mask{j}" for j, k in enumerate(plan.links) if k.masked]
        names += [*(n.replace(".", "_") for n in plan.results), *(f"ring{j}" for j in self.rings(False))]
        return [*names, *self._of_delays(), *self.sequences(False)]

    def backward_names(self) -> list[str]:
        """What ``backward`` takes after the numbers. ``d_current0`` [T, B, N] receives, for a cell with learned
        parameters, the whole gradient of its output, from which :func:`.triton_source.cell_source` goes on.
        """
        plan = self.plan
        names = [f"d_{n}".replace(".", "_") for n in plan.differentiable]
        for i, cell in enumerate(plan.cells):
            names += [f"values{i}"] if cell.program.params else []
            names += [*(f"saved{i}_{s}" for s in plan.saved(i)), f"d_current{i}"]
            names += [f"d_state{i}_{s}" for s in cell.program.states]
        names += [f"weight{j}" for j in range(len(plan.links))]
        names += [f"mask{j}" for j, k in enumerate(plan.links) if k.masked]
        return [*names, *(f"ring{j}" for j in self.rings(True)), *self._of_delays(), *self.sequences(True)]

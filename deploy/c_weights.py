"""How a connection's weights lie in a C program: every weight, or only those that are not 0, whichever is smaller; in
bytes, or two in a byte where 4 bits hold them. Of neurons that are copies of each other the weights lie there once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from .c_text import array

NIBBLE = (-8, 7)
KINDS = ("dense", "mapped", "listed")
"""``dense``: every weight. ``mapped``: a bit for each weight that says whether it is there, and those that are.
``listed``: those that are not 0, each with its target."""
DOCS = {
    "dense": "one row of {targets} targets for each of {sources} sources",
    "mapped": "for each of {sources} sources a bit per target, and the weights of those that are set, from 'first' on",
    "listed": "for each of {sources} sources, from its 'first' to the next one's, a target and its weight",
}


@dataclass(frozen=True)
class StoredWeights:
    """The weights of connection ``name``, as they lie in a C program under ``link``.

    Attributes:
        weights: int8 [targets, sources], those that are stored. copies: how many neurons in a row, of targets and of
            sources, share each of them.
    """

    name: str
    link: str
    weights: np.ndarray
    kind: str
    packed: bool
    copies: tuple[int, int] = (1, 1)

    @property
    def plain(self) -> bool:
        """One byte for every weight."""
        return self.kind == "dense" and not self.packed and self.copies == (1, 1)

    @property
    def bytes(self) -> int:
        """What the arrays take."""
        return stored_bytes(self.weights, self.kind, self.packed)

    def arrays(self) -> list[str]:
        """The constants."""
        rows, link = self.weights.T, self.link
        sources, targets = rows.shape
        about = DOCS[self.kind].format(targets=targets, sources=sources) + self.packed * "; two weights in a byte, + 8"
        if self.copies != (1, 1):
            about += f"; each is {self.copies[0]} neurons, and of the sources {self.copies[1]}"
        lines = [f"/* {self.name}: {about} */"]
        if self.kind == "dense":
            values = _pack(rows) if self.packed else rows
            return lines + array(f"static const {self._type()} w_{link}[{values.size}]", values.reshape(-1))
        first = np.concatenate([[0], np.cumsum((rows != 0).sum(1))])
        there = rows[rows != 0] if rows.any() else np.zeros(1, np.int8)
        values = _pack(there[None]).reshape(-1) if self.packed else there
        lines += array(f"static const {self._type()} w_{link}[{values.size}]", values)
        lines += array(f"static const {_index(int(first[-1]))} first_{link}[{len(first)}]", first)
        if self.kind == "mapped":
            bits = np.packbits(rows != 0, axis=1, bitorder="little")
            return lines + array(f"static const uint8_t map_{link}[{bits.size}]", bits.reshape(-1))
        target = np.nonzero(rows)[1] if rows.any() else np.zeros(1, int)
        return lines + array(f"static const {_index(targets - 1)} to_{link}[{target.size}]", target)

    def loop(self, body: list[str], row: str = "j") -> list[str]:
        """``body`` for every stored weight of the source ``row``, an expression, with the target neuron in ``i`` and the
        weight in ``weight``; ``i`` is declared before.
        """
        link, targets, each = self.link, len(self.weights), self.copies[0]
        at, start = ("i", []) if each == 1 else ("g", ["int32_t g;"])
        inner = [f"    {line}" for line in body]
        if each > 1:
            inner = [
                f"    for (i = {each} * g; i < {each} * g + {each}; ++i) {{",
                *(f"    {x}" for x in inner),
                "    }",
            ]
        if self.kind == "dense":
            width = (targets + 1) // 2 if self.packed else targets
            head = f"const {self._type()} *row = w_{link} + {row} * {width};"
            weight = f"const int32_t weight = {f'nibble(row, {at})' if self.packed else f'row[{at}]'};"
            return [*start, head, f"for ({at} = 0; {at} < {targets}; ++{at}) {{", f"    {weight}", *inner, "}"]
        weight = f"const int32_t weight = {f'nibble(w_{link}, e)' if self.packed else f'w_{link}[e]'};"
        if self.kind == "listed":
            return [
                *start,
                f"int32_t e = (int32_t)first_{link}[{row}];",
                f"for (; e < (int32_t)first_{link}[{row} + 1]; ++e) {{",
                f"    {weight}",
                f"    {at} = to_{link}[e];",
                *inner,
                "}",
            ]
        return [
            *start,
            f"const uint8_t *map = map_{link} + {row} * {(targets + 7) // 8};",
            f"int32_t e = (int32_t)first_{link}[{row}];",
            f"for ({at} = 0; {at} < {targets}; ++{at}) {{",
            f"    if (((map[{at} >> 3] >> ({at} & 7)) & 1) != 0) {{",
            f"        {weight}",
            *(f"    {line}" for line in inner),
            "        ++e;",
            "    }",
            "}",
        ]

    def _type(self) -> str:
        return "uint8_t" if self.packed else "int8_t"


def stored(name: str, link: str, weights: np.ndarray) -> StoredWeights:
    """The smallest form of ``weights`` int8 [N_target, N_source]; of equals the plainer one."""
    copies = copies_of(weights)
    weights = weights[:: copies[0], :: copies[1]]
    packed = bool(weights.size) and NIBBLE[0] <= int(weights.min()) and int(weights.max()) <= NIBBLE[1]
    kind = min(KINDS, key=lambda k: (stored_bytes(weights, k, packed), KINDS.index(k)))
    return StoredWeights(name, link, weights, kind, packed, copies)


def copies_of(weights: np.ndarray) -> tuple[int, int]:
    """How many neurons in a row, of targets and of sources, share all their ``weights`` [N_target, N_source]."""
    return _equal(weights), _equal(weights.T)


def _equal(rows: np.ndarray) -> int:
    changes = np.flatnonzero((rows[1:] != rows[:-1]).any(1)) + 1
    return math.gcd(len(rows), *changes.tolist()) if rows.size else 1


def stored_bytes(weights: np.ndarray, kind: str, packed: bool) -> int:
    """Bytes of ``weights`` in one form."""
    targets, sources = weights.shape
    if kind == "dense":
        return sources * ((targets + 1) // 2 if packed else targets)
    there = int(np.count_nonzero(weights))
    values = max(1, (there + 1) // 2 if packed else there)
    first = (sources + 1) * _size(there)
    return values + first + (sources * ((targets + 7) // 8) if kind == "mapped" else max(1, there) * _size(targets - 1))


def helper() -> list[str]:
    """The function that reads one of two weights in a byte."""
    return [
        "/* number i of those that lie two in a byte */",
        "static int32_t nibble(const uint8_t *packed, int32_t i)",
        "{",
        "    return (int32_t)((packed[i >> 1] >> (4 * (i & 1))) & 15) - 8;",
        "}",
        "",
    ]


def _pack(rows: np.ndarray) -> np.ndarray:
    """Two weights in a byte, the first in the low half, each row on bytes of its own."""
    raised = (rows.astype(np.int16) + 8).astype(np.uint8)
    even = np.pad(raised, ((0, 0), (0, raised.shape[1] % 2)))
    return even[:, 0::2] | even[:, 1::2] << 4


def _size(most: int) -> int:
    return 1 if most < 1 << 8 else 2 if most < 1 << 16 else 4


def _index(most: int) -> str:
    return f"uint{8 * _size(most)}_t"

"""Names that are legal in C and C++ and, with a prefix, in SystemVerilog."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable

from ..errors import ExportError

_RESERVED = frozenset(
    """alignas alignof and asm auto bitand bitor bool break case catch char class compl const constexpr continue decltype default delete do double
    else enum explicit export extern false float for friend goto if inline int long mutable namespace new noexcept not nullptr operator or
    private protected public register restrict return short signed sizeof static struct switch template this throw true try typedef typeid
    typename union unsigned using virtual void volatile wchar_t while xor readout acc main""".split()
)  # fmt: skip
"""Keywords of C and C++, and the fields that every state has. Names in Verilog carry a prefix instead."""


def identifiers(names: Iterable[str], reserved: Collection[str] = _RESERVED) -> dict[str, str]:
    """Each name as an ASCII identifier that is not ``reserved`` and unlike the others, also without regard to case."""
    result: dict[str, str] = {}
    taken: set[str] = set()
    for name in names:
        base = re.sub(r"\W", "_", name, flags=re.ASCII)
        base = base if re.match(r"[A-Za-z]", base) else f"n{base}"
        base = f"{base}_" if base.lower() in reserved else base
        plain, number = base, 1
        while plain.lower() in taken:
            number += 1
            plain = f"{base}_{number}"
        taken.add(plain.lower())
        result[name] = plain
    return result


def checked_name(name: str) -> str:
    """The name of an artefact. Raises :class:`ExportError` unless it can begin the names of C functions and Verilog
    modules.
    """
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", name) or name.lower() in _RESERVED or len(name) > 60:
        raise ExportError(f"{name!r} cannot name an artefact; use letters, digits and _, beginning with a letter")
    return name

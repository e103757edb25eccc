"""The errors Ranvier raises. A message names what was wrong, where, and what to do about it."""

from __future__ import annotations


class RanvierError(Exception):
    """The base of every error that Ranvier raises on purpose."""


class DataError(RanvierError):
    """A data file or recording is missing, damaged, or not what its format promises."""


class ConfigError(RanvierError):
    """A setting or an argument is unknown, of the wrong type, or out of its range."""


class TraceError(RanvierError):
    """A neuron's step cannot be written as a step program."""


class GraphError(RanvierError):
    """A network's graph is not runnable: a cycle without delay, a size that does not fit, an unknown population."""


class ExportError(RanvierError):
    """A network has no integer form, or no form for the asked target; raised before a file is written."""


class RunError(RanvierError):
    """A run cannot go on, or a run folder is incomplete, damaged or of a format this release does not read."""


class ToolError(RanvierError):
    """An outside program (compiler, simulator, speech synthesiser) is missing or failed."""


class EngineError(RanvierError):
    """An engine cannot run what it was given: another device or number type, or a part that it needs is missing."""

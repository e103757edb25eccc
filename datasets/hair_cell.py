"""The compiled half of the inner-ear model: hair cells, auditory nerve fibres and bushy cells.

Hair cell: Meddis (1986), JASA 79(3) 702 and (1988), JASA 83(3) 1056, explicit steps. Fibres: 40 per place,
Bernoulli(P) per step, dead time 1 ms. Bushy cell: leaky integrate-and-fire with an exponential synaptic current, of
Cramer et al. (2020).

Sampling. One trial per step and ready fibre succeeds with probability P, which is the same as: each trial owns a
stretch of length -log(1 - P) of a Poisson process of rate 1, and succeeds if a point falls into it. So the distance
to the next success is one exponential variate, and steps without a success cost one subtraction. Nothing is
approximated.
"""

from __future__ import annotations

import math
from typing import Any

import numba
import numpy as np
import numpy.typing as npt

LANES = 16  # places computed side by side: one AVX-512 register, two AVX2 ones
FIBRES = 40

_TILE = 64
_REPLENISH, _RELEASE, _LOSS, _RECOVERY, _REPROCESS = 5.05, 2000.0, 2500.0, 6580.0, 66.3
_A, _B, _FIRE, _POOL = 5.0, 300.0, 50000.0, 1.0
_DEAD_S = 1e-3
_TAU_SYN_S, _TAU_MEM_S, _REFRACTORY_S, _WEIGHT = 0.5e-3, 1e-3, 1e-3, 13000.0


def new_states(seed: int, first: int, places: int) -> npt.NDArray[np.uint64]:
    """Generator states uint64 [places, 4] of the places from ``first`` on: xoshiro256++ keyed by (seed, place)."""
    states = np.empty((places, 4), np.uint64)
    _seed_states(np.uint64(seed), first, states)
    return states


def run_places(
    velocity: npt.NDArray[np.float32], rate: float, states: npt.NDArray[np.uint64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint16]]:
    """Spikes of the bushy cells of up to ``LANES`` places.

    Args:
        velocity: float32 [places, steps], membrane velocity.
        rate: steps per second.
        states: uint64 [places, 4] from :func:`new_states`; moved on.

    Returns:
        (step int64 [spikes], place uint16 [spikes]), place by place, steps ascending within each.
    """
    places, steps = velocity.shape
    refractory = round(_REFRACTORY_S * rate)
    capacity = places * (steps // (refractory + 1) + 2)
    step_out = np.empty(capacity, np.int64)
    place_out = np.empty(capacity, np.int64)
    count = np.zeros(places, np.int64)
    _run(velocity, rate, states, step_out, place_out, count)
    used = int(count.sum())
    order = np.argsort(place_out[:used], kind="stable")
    return step_out[:used][order], place_out[:used][order].astype(np.uint16)


def release_probability(velocity: npt.NDArray[np.float32], rate: float) -> npt.NDArray[np.float32]:
    """Firing probability per fibre and step, float32 [places, steps]: the hair cell alone, to look at and to test."""
    hazard = np.empty_like(velocity)
    for first in range(0, len(velocity), LANES):
        part = np.ascontiguousarray(velocity[first : first + LANES])
        out = np.empty_like(part)
        _hazards(part, rate, out)
        hazard[first : first + LANES] = out
    return -np.expm1(-hazard)


def fibre_counts(
    probability: npt.NDArray[np.floating], rate: float, seed: int, place: int = 0
) -> npt.NDArray[np.int64]:
    """How many of the 40 fibres fire in each step, int64 [steps], given the probabilities [steps]; to test."""
    out = np.empty(len(probability), np.int64)
    _fibres(np.asarray(probability, np.float64), round(_DEAD_S * rate), new_states(seed, place, 1), out)
    return out


@numba.njit(cache=True, inline="always")
def _split_mix(x: Any) -> Any:
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


@numba.njit(cache=True)
def _seed_states(seed: Any, first: int, states: Any) -> None:
    gamma = np.uint64(0x9E3779B97F4A7C15)
    for i in range(states.shape[0]):
        x = _split_mix(_split_mix(seed + gamma) + np.uint64(first + i) * gamma)
        for k in range(4):
            x += gamma
            states[i, k] = _split_mix(x)


@numba.njit(cache=True, inline="always")
def _exponential(states: Any, i: int) -> float:
    """One draw of Exp(1) from generator ``i`` (xoshiro256++ of Blackman and Vigna 2019)."""
    s0, s1, s2, s3 = states[i, 0], states[i, 1], states[i, 2], states[i, 3]
    total = s0 + s3
    result = ((total << np.uint64(23)) | (total >> np.uint64(41))) + s0
    t = s1 << np.uint64(17)
    s2 ^= s0
    s3 ^= s1
    s1 ^= s2
    s0 ^= s3
    s2 ^= t
    s3 = (s3 << np.uint64(45)) | (s3 >> np.uint64(19))
    states[i, 0], states[i, 1], states[i, 2], states[i, 3] = s0, s1, s2, s3
    uniform = (np.float64(result >> np.uint64(11)) + 0.5) * (1.0 / 9007199254740992.0)
    return -math.log(uniform)


@numba.njit(cache=True, inline="always")
def _hits(states: Any, i: int, left: float, trials: int, hazard: float) -> Any:
    """Successes among ``trials`` fibres in one step, and the distance that is then left to the next success."""
    hits = 0
    stretch = trials * hazard
    while left < stretch:
        trials -= int(left / hazard) + 1  # those that failed before this success, and the success itself
        hits += 1
        left = _exponential(states, i)
        stretch = max(trials, 0) * hazard
    return hits, left - stretch


@numba.njit(cache=True)
def _fibres(probability: Any, dead: int, states: Any, out: Any) -> None:
    fired = np.zeros(dead, np.int64)
    ready = FIBRES
    left = _exponential(states, 0)
    for k in range(probability.shape[0]):
        slot = k % dead
        ready += fired[slot]
        hits, left = _hits(states, 0, left, ready, -math.log1p(-probability[k]))
        fired[slot] = hits
        ready -= hits
        out[k] = hits


@numba.njit(cache=True)
def _rest(rate: float, free: Any, cleft: Any, store: Any) -> None:
    k0 = _RELEASE * _A / (_A + _B)
    c = _POOL * _REPLENISH * k0 / (_LOSS * k0 + _REPLENISH * (_LOSS + _RECOVERY))
    for i in range(free.shape[0]):
        cleft[i] = c
        free[i] = c * (_LOSS + _RECOVERY) / k0
        store[i] = c * _RECOVERY / _REPROCESS


@numba.njit(cache=True, fastmath=True)
def _hair_cell_tile(
    velocity: Any, start: int, size: int, rate: float, free: Any, cleft: Any, store: Any, hazard: Any
) -> None:
    """Advance LANES hair cells by ``size`` steps; hazard [_TILE, LANES] receives -log(1 - P) of every step."""
    one, zero = np.float32(1.0), np.float32(0.0)
    a, ab, pool = np.float32(_A), np.float32(_A + _B), np.float32(_POOL)
    release = np.float32(_RELEASE / rate)
    replenish = np.float32(_REPLENISH / rate)
    leave = np.float32((_LOSS + _RECOVERY) / rate)
    recover = np.float32(_RECOVERY / rate)
    reprocess = np.float32(_REPROCESS / rate)
    fire = np.float32(_FIRE / rate)
    third, fifth, seventh = np.float32(1 / 3), np.float32(1 / 5), np.float32(1 / 7)
    ninth, eleventh, two = np.float32(1 / 9), np.float32(1 / 11), np.float32(2.0)
    rows = velocity.shape[0]
    for i in range(LANES):
        row = min(i, rows - 1)
        for k in range(size):
            hazard[k, i] = velocity[row, start + k]
    for k in range(size):
        for i in range(LANES):
            v = hazard[k, i]
            permeable = max(v + a, zero)
            gate = release * (permeable / (permeable + (ab - a)))
            q, c, w = free[i], cleft[i], store[i]
            out = gate * q
            back = reprocess * w
            free[i] = max(q + max(replenish * (pool - q), zero) - out + back, zero)
            c_next = max(c + out - leave * c, zero)
            cleft[i] = c_next
            store[i] = max(w + recover * c - back, zero)
            # -log(1 - p) = 2 atanh(s) with s = p / (2 - p); p stays below 0.5: the series is exact to single precision
            p = fire * c_next
            s = p / (two - p)
            z = s * s
            hazard[k, i] = two * s * (one + z * (third + z * (fifth + z * (seventh + z * (ninth + z * eleventh)))))


@numba.njit(cache=True)
def _hazards(velocity: Any, rate: float, out: Any) -> None:
    free, cleft, store = np.empty(LANES, np.float32), np.empty(LANES, np.float32), np.empty(LANES, np.float32)
    hazard = np.empty((_TILE, LANES), np.float32)
    _rest(rate, free, cleft, store)
    steps = velocity.shape[1]
    for start in range(0, steps, _TILE):
        size = min(_TILE, steps - start)
        _hair_cell_tile(velocity, start, size, rate, free, cleft, store, hazard)
        for i in range(velocity.shape[0]):
            for k in range(size):
                out[i, start + k] = hazard[k, i]


@numba.njit(cache=True, nogil=True, fastmath=True)
def _run(velocity: Any, rate: float, states: Any, step_out: Any, place_out: Any, count: Any) -> None:
    places, steps = velocity.shape
    free, cleft, store = np.empty(LANES, np.float32), np.empty(LANES, np.float32), np.empty(LANES, np.float32)
    hazard = np.empty((_TILE, LANES), np.float32)
    _rest(rate, free, cleft, store)

    dead, refractory = round(_DEAD_S * rate), round(_REFRACTORY_S * rate)
    decay_syn, decay_mem = math.exp(-1.0 / (_TAU_SYN_S * rate)), math.exp(-1.0 / (_TAU_MEM_S * rate))
    jump = _WEIGHT / FIBRES / rate
    fired = np.zeros((places, dead), np.int64)  # ring: how many fibres fired in each of the last `dead` steps
    ready = np.full(places, FIBRES, np.int64)
    distance = np.empty(places)
    current, voltage = np.zeros(places), np.zeros(places)
    blocked = np.zeros(places, np.int64)
    for i in range(places):
        distance[i] = _exponential(states, i)

    written = 0
    for start in range(0, steps, _TILE):
        size = min(_TILE, steps - start)
        _hair_cell_tile(velocity, start, size, rate, free, cleft, store, hazard)
        for i in range(places):
            left, able, syn, mem, wait = distance[i], ready[i], current[i], voltage[i], blocked[i]
            slot = start % dead
            for k in range(size):
                able += fired[i, slot]
                hits, left = _hits(states, i, left, able, np.float64(hazard[k, i]))
                fired[i, slot] = hits
                able -= hits
                slot += 1
                if slot == dead:
                    slot = 0
                syn = syn * decay_syn + hits
                if wait > 0:
                    wait -= 1
                    mem = 0.0
                else:
                    mem = mem * decay_mem + jump * syn
                    if mem >= 1.0:
                        mem = 0.0
                        wait = refractory
                        step_out[written] = start + k
                        place_out[written] = i
                        written += 1
                        count[i] += 1
            distance[i], ready[i], current[i], voltage[i], blocked[i] = left, able, syn, mem, wait

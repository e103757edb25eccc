"""Taking the colour of a recording out of its counts: what a microphone, a room or a voice adds to a whole word."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from .binning import LARGEST_COUNT

SHARE = 0.2  # of the channels that the mean is smoothed over, so that the tilt goes and the formants stay
LARGEST_GAIN = 4.0  # so that channels in which almost nothing was heard are not blown up


def equalised(counts: Tensor, strength: float) -> Tensor:
    """Scale each word's channels towards equal mean counts, in whole counts.

    Channel c of a word is multiplied by (mean of the word / mean of its channels around c) ^ ``strength``, at most by 4
    and at least by 1/4, and rounded. The neighbourhood is a fifth of the channels wide and ends at the edges. The gain
    is known only when the word is over, as its duration is in relative time.

    Args:
        counts: uint8 [T, B, C].
        strength: 0 (nothing changes) to 1 (the smoothed mean counts become equal).

    Returns:
        uint8 [T, B, C]; counts stop at 255, and a silent word stays silent.
    """
    if strength == 0:
        return counts
    width = max(1, round(SHARE * counts.shape[2])) | 1
    means = counts.sum(0, dtype=torch.float32) / len(counts)  # [B, C]
    around = functional.avg_pool1d(means[:, None], width, 1, width // 2, count_include_pad=False)[:, 0]
    gain = (means.mean(1, keepdim=True) / around.clamp(min=1e-6)).clamp(1 / LARGEST_GAIN, LARGEST_GAIN) ** strength
    return (counts * gain).round_().clamp_(max=LARGEST_COUNT).to(torch.uint8)

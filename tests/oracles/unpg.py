"""The UNPG loss written out as it is defined, with the N x (C + K) concatenation."""

import math

import torch
from torch.nn import functional

from negvision.face.losses import UNPGLoss

MARGINS = ["NoMargin", "CosFaceMargin", "ArcFaceMargin", "MagFaceMargin", "AdaFaceMargin"]


def kept_negatives(units, labels, whisker):
    """Similarities of the pairs i < j of two identities, without those beyond the whiskers."""
    count = len(labels)
    pairs = [(i, j) for i in range(count) for j in range(i + 1, count) if labels[i] != labels[j]]
    if not pairs:
        return units.new_zeros(0)
    first, second = torch.tensor(pairs).T
    similarities = (units @ units.T)[first, second]
    if whisker is None:
        return similarities
    ordered = similarities.detach().sort().values
    low, high = ordered[int(0.25 * len(pairs))], ordered[int(0.75 * len(pairs))]
    reach = whisker * (high - low)
    return similarities[(similarities >= low - reach) & (similarities <= high + reach)]


def written_out(loss: UNPGLoss, embeddings, labels):
    """What ``loss`` should return, from its margin and all of its centers."""
    units = functional.normalize(embeddings)
    norms = embeddings.norm(dim=1)
    logits = units @ functional.normalize(loss.weight).T
    own = functional.one_hot(labels, loss.num_classes).bool()
    logits = loss.scale * torch.where(own, loss.margin(logits[own], norms)[:, None], logits)
    if loss.metric_pairs:
        negatives = loss.scale * kept_negatives(units, labels, loss.whisker)
        negatives = negatives + math.log(loss.pair_weight)
        logits = torch.cat([logits, negatives.expand(len(labels), -1)], dim=1)
    value = functional.cross_entropy(logits, labels)
    if hasattr(loss.margin, "regularizer"):
        value = value + loss.margin.regularizer(norms)
    return value

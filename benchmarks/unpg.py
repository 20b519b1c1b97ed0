"""UNPG loss, forward and backward: negvision against the definition and a plain margin loss.

Medians of alternating runs in one process: (a) the definition written out, a cross entropy over the
N x (C + pairs) concatenation; (b) pytorch-metric-learning's ArcFaceLoss, which has only the class
part; (c) the same part as InsightFace's CombinedMarginLoss and PartialFC compute it on one device,
rebuilt from their formulas: angles of the whole N x C matrix without gradient, then a cross
entropy; (d) the bare matrix products, three N x C x D and three N x N x D, as the lower bound. The
run fails if the losses of (a) and negvision differ, or (c) and negvision's without pairs ("class
part"). Peak memory includes the gradients and is measured in a separate process. The definition is
skipped, with a note, if it needs more memory than is available.

    python benchmarks/unpg.py                         # results/unpg.json
    python benchmarks/unpg.py --samples 512 --classes 10000
    python benchmarks/unpg.py --device cuda           # also a million classes
    python benchmarks/unpg.py --device cuda --products bfloat16    # ours and the bare products
"""

from __future__ import annotations

import argparse
import os

import torch
from harness import (
    alternate,
    arguments,
    in_process_of_its_own,
    machine,
    peak_memory,
    require_operators,
    write_results,
)
from pytorch_metric_learning.losses import ArcFaceLoss
from torch.nn import functional

from negvision.face.losses import UNPGLoss

SIZE = 512
MARGIN, SCALE, WHISKER = 0.5, 64.0, 1.5
NAMES = ("definition", "metric-learning", "PartialFC", "products", "class part", "negvision")
# Simultaneous copies of the concatenation: itself, its log-softmax, and two gradients.
COPIES = 4


def definition(embeddings, labels, weight, margin) -> torch.Tensor:
    """Jung et al., BMVC 2022, section 3, literally."""
    units = functional.normalize(embeddings)
    cosine = units @ functional.normalize(weight).T
    rows = torch.arange(len(units), device=units.device)
    target = margin(cosine[rows, labels], embeddings.norm(dim=1))
    logits = cosine.index_put((rows, labels), target)
    similarity = units @ units.T
    above = torch.ones_like(similarity, dtype=torch.bool).triu(1)
    pairs = similarity[above & (labels[:, None] != labels)]
    if len(pairs):
        ordered = pairs.detach().sort().values
        low, high = ordered[int(0.25 * len(pairs))], ordered[int(0.75 * len(pairs))]
        reach = WHISKER * (high - low)
        pairs = pairs[(pairs >= low - reach) & (pairs <= high + reach)]
    joined = torch.cat([logits, pairs.expand(len(units), -1)], 1)
    return functional.cross_entropy(SCALE * joined, labels)


def partial_fc(embeddings, labels, weight) -> torch.Tensor:
    """The class part with every class, after the formulas of InsightFace's two modules."""
    cosine = (functional.normalize(embeddings) @ functional.normalize(weight).T).clamp(-1, 1)
    rows = torch.arange(len(cosine), device=cosine.device)
    with torch.no_grad():
        angles = cosine.arccos()
        angles[rows, labels] += MARGIN
        moved = angles.cos_()
    # The margin has no gradient of its own: that of the logit is that of the cosine.
    return functional.cross_entropy(SCALE * (cosine + (moved - cosine).detach()), labels)


def functions(samples: int, classes: int, device: str, rounded: str | None) -> dict:
    """The timed functions; all except the products compute the gradients and return the loss."""
    generator = torch.Generator().manual_seed(0)
    embeddings = torch.randn(samples, SIZE, generator=generator).to(device).requires_grad_()
    labels = torch.randint(classes, (samples,), generator=generator).to(device)
    torch.manual_seed(0)
    margin = {"type": "ArcFaceMargin", "m": MARGIN}
    ours = UNPGLoss(classes, SIZE, margin, SCALE, WHISKER, products=rounded).to(device)
    classes_alone = UNPGLoss(classes, SIZE, margin, SCALE, metric_pairs=False).to(device)
    classes_alone.weight = ours.weight
    theirs = ArcFaceLoss(classes, SIZE, margin=MARGIN * 180 / torch.pi, scale=SCALE).to(device)
    with torch.no_grad():
        theirs.W.copy_(ours.weight.T)

    def step(loss, parameter):
        def run():
            embeddings.grad = parameter.grad = None
            value = loss(embeddings, labels)
            value.backward()
            return value.detach()

        return run

    dtype = getattr(torch, rounded or "float32")
    units, weight = embeddings.detach().to(dtype), ours.weight.detach().to(dtype)

    def products():
        logits = units @ weight.T
        kept = [logits @ weight, logits.T @ units]
        similarity = units @ units.T
        return [*kept, similarity @ units, similarity.T @ units]

    return {
        "definition": step(lambda x, y: definition(x, y, ours.weight, ours.margin), ours.weight),
        "metric-learning": step(theirs, theirs.W),
        "PartialFC": step(lambda x, y: partial_fc(x, y, ours.weight), ours.weight),
        "products": products,
        "class part": step(classes_alone, ours.weight),
        "negvision": step(ours, ours.weight),
    }


def concatenation_bytes(samples: int, classes: int) -> int:
    return samples * (classes + samples * (samples - 1) // 2) * 4


def available_bytes(device: str) -> int:
    if device != "cpu":
        return torch.cuda.mem_get_info()[0]
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def compare(samples: int, classes: int, device: str, repeats: int, rounded: str | None) -> dict:
    of = functions(samples, classes, device, rounded)
    needed = concatenation_bytes(samples, classes)
    fits = COPIES * needed < 0.8 * available_bytes(device)
    if fits:
        expected, got = of["definition"](), of["negvision"]()
        if not torch.allclose(expected, got, rtol=1e-2 if rounded else 1e-5):
            raise SystemExit(f"losses differ: {expected.item()} and {got.item()}")
    else:
        of.pop("definition")
    expected, got = of["PartialFC"](), of["class part"]()
    if not rounded and not torch.allclose(expected, got, rtol=1e-4):
        raise SystemExit(f"class parts differ: {expected.item()} and {got.item()}")
    times = alternate(of, repeats, device=device)
    row = {
        "samples": samples,
        "classes": classes,
        "concatenation_gib": needed / 2**30,
        "ms": {name: times[name]["median_s"] * 1e3 for name in of},
        "runs_ms": {name: [1e3 * t for t in times[name]["runs"]] for name in of},
        "peak_mib": {},
    }
    for name in of:
        if device == "cpu":
            which = [name, str(samples), str(classes), *([rounded] if rounded else [])]
            peak = int(in_process_of_its_own(__file__, "--memory-of", *which))
        else:
            peak = peak_memory(of[name], device)
        row["peak_mib"][name] = peak / 2**20
    return row


def show(row: dict) -> None:
    ms, mib = row["ms"], row["peak_mib"]

    def cell(values: dict, name: str, width: int) -> str:
        return f"{values[name]:>{width},.0f}" if name in values else f"{'-':>{width}}"

    gain = f"{ms['definition'] / ms['negvision']:.1f} x" if "definition" in ms else "-"
    less = f"{mib['definition'] / mib['negvision']:.1f} x" if "definition" in mib else "-"
    print(
        f"{row['samples']:>6} {row['classes']:>9,}   "
        + " ".join(cell(ms, name, 10) for name in NAMES)
        + f"  {gain:>7} {ms['negvision'] / ms['products']:>6.2f}   "
        + " ".join(cell(mib, name, 10) for name in NAMES if name != "products")
        + f"  {less:>7}"
    )
    if "definition" not in ms:
        print(
            f"{'':>16}   the definition is skipped: one copy of its {row['samples']:,} x "
            f"(classes + pairs) matrix takes {row['concatenation_gib']:,.1f} GiB"
        )


def main() -> None:
    parser = arguments(__doc__, "unpg[_bfloat16]", repeats=5, devices=True)
    parser.add_argument("--samples", type=int, nargs="+", default=[128, 512, 2048])
    parser.add_argument("--classes", type=int, nargs="+", help="default: 10,000 and 100,000")
    parser.add_argument(
        "--products", choices=["bfloat16", "float16"], help="precision of the products' factors"
    )
    parser.add_argument("--memory-of", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.memory_of:
        name, samples, classes, *rounded = options.memory_of
        of = functions(int(samples), int(classes), "cpu", rounded[0] if rounded else None)
        print(peak_memory(of[name]))
        return
    require_operators()
    classes = options.classes or [10_000, 100_000]
    if options.device == "cuda" and not options.classes:
        classes.append(1_000_000)
    print(f"{machine()['cpu']}, {torch.get_num_threads()} threads; device {options.device}")
    print(
        f"{'':>16}   {'milliseconds, forward and backward':^65}  {'gain':>7} {'x bare':>6}   "
        f"{'peak memory, MiB':^54}  {'less':>7}\n"
        f"{'N':>6} {'C':>9}   {'definition':>10} {'metric-l.':>10} {'PartialFC':>10} "
        f"{'products':>10} {'class part':>10} {'negvision':>10}  {'':>7} {'':>6}   "
        f"{'definition':>10} {'metric-l.':>10} {'PartialFC':>10} {'class part':>10} "
        f"{'negvision':>10}"
    )
    rows = []
    for count in options.samples:
        for number in classes:
            rows.append(compare(count, number, options.device, options.repeats, options.products))
            show(rows[-1])
    name = "_".join(["unpg", *filter(None, [options.products])])
    name += "" if options.device == "cpu" else "_cuda"
    payload = {"embedding_size": SIZE, "threads": torch.get_num_threads(), "rows": rows}
    write_results(name, payload, options.out)


if __name__ == "__main__":
    main()

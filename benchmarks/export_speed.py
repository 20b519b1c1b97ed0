"""ATSS with a ResNet-18 at 320 x 320: PyTorch, PyTorch compiled, and ONNX Runtime.

The COCO model has random weights, with which it returns the largest number of boxes; the quick
start's has those of ``--checkpoint``, or random ones::

    python benchmarks/export_speed.py --checkpoint work_dirs/atss_digits/iter_2400.pth
"""

from __future__ import annotations

import sys
from pathlib import Path

from harness import arguments, write_results

from negvision.benchmark.cost import cost_of_config
from negvision.engine.config.check import check_config
from negvision.engine.config.reading import load_config
from negvision.engine.quiet import silence_idle_warnings

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
SIZE = (320, 320)
MODELS = ("atss/atss_r18.py", "quickstart/atss_digits.py")


def main() -> int:
    """Measure, print and write; 1 if two ways to run a model give different results."""
    parser = arguments(__doc__, "export_speed")
    parser.add_argument("--checkpoint", help="of the quick start")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=30, help="of each way to run a model")
    args = parser.parse_args()
    silence_idle_warnings()
    costs = []
    for config in MODELS:
        cfg = load_config(CONFIGS / config)
        check_config(cfg)
        checkpoint = args.checkpoint if config.startswith("quickstart") else None
        options = {"size": SIZE, "seconds": args.seconds, "threads": args.threads}
        costs.append(cost_of_config(cfg, config, checkpoint, lambda step: None, **options))
        print(f"{costs[-1].text()}\n", flush=True)
    write_results("export_speed", {"models": [c.to_dict() for c in costs]}, args.out)
    return int(any(cost.differs for cost in costs))


if __name__ == "__main__":
    sys.exit(main())

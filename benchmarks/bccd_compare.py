"""Is ATSS better than max-IoU on blood cells? The seeds of ``bccd_table.py``, compared.

Trains what ``bccd_table.py`` has not, with the same options, and runs ``negvision compare`` on the
last checkpoints of all seeds::

    NEGVISION_DATA=... python benchmarks/bccd_compare.py --seeds 0 1 2

The output goes to ``compare.txt`` in the work dir, the page to ``compare.html``.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from bccd_table import CONFIGS, format_run, read_metrics
from training_runs import ROOT, parser_for, run_all


def main() -> int:
    args = parser_for("bccd", __doc__).parse_args()
    run_all(CONFIGS, args, read_metrics, format_run, test=True)
    sides = []
    for config in CONFIGS.values():
        runs = [args.work_dir / f"{Path(config).stem}_seed{seed}" / "train" for seed in args.seeds]
        sides.append(",".join((run / "last_checkpoint").read_text().strip() for run in runs))
    options = ["--groups", "size", "--out", str(args.work_dir / "compare.html")]
    options += [f"--data-root={args.data_root}"] if args.data_root else []
    command = [sys.executable, "-m", "negvision", "compare", *sides, *options]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    (args.work_dir / "compare.txt").write_text(done.stdout)
    print(done.stdout)
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())

"""``negvision audit RUN``: which labels of a data set are wrong."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import lru_cache, partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from negvision.cli.arguments import (
    add_data_arguments,
    add_device,
    add_trust_checkpoint,
    announce,
    checked,
    fraction,
)
from negvision.cli.output import progress_bar, write_page
from negvision.errors import ConfigError, ExportError, UserError
from negvision.files import check_writable

if TYPE_CHECKING:
    from negvision.audit.data import Audited
    from negvision.audit.decisions import Decisions
    from negvision.data.suspects import Suspects

HELP = "find wrong labels: missing boxes, wrong classes, misplaced boxes, other people"
DESCRIPTION = (
    "Rank the labels that a model doubts, with the probability that each is wrong, and write "
    "suspects.json, suspects.csv, a page with crops, and for boxes a corrected COCO file."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("model", metavar="RUN", help="work dir, or a checkpoint, which has its config")
    data = "annotation file, or a folder of annotated images (default: what the run trained on)"
    add("--data", metavar="PATH", help=data)
    method = "the model, or also the losses of its training, if they were recorded (default)"
    add("--method", choices=("model", "history"), help=method)
    number = checked(int, "an integer above 1", lambda value: value > 1)
    folds = "train K times without a part of the images, and judge each by a model without it"
    add("--folds", type=number, metavar="K", help=folds)
    likely = "list labels that are wrong with at least this probability (default: 0.3)"
    add("--min-probability", type=fraction, metavar="P", help=likely)
    add("--out", type=Path, metavar="DIR", help="folder to write to (default: audit in the run's)")
    review = (
        "open a local page to accept and reject suspects, of the audit in --out if there is one"
    )
    add("--review", action="store_true", help=review)
    port = checked(int, "a port from 0 to 65535", lambda port: 0 <= port <= 65535)
    add("--port", type=port, help="of the page of --review (default: 7861)")
    add_data_arguments(parser)
    add_device(parser)
    add_trust_checkpoint(parser)


def run(args: argparse.Namespace) -> int:
    """Audit, or review; 0."""
    if args.folds and args.method:
        raise ConfigError("--folds trains models of its own: leave out --method")
    if args.port is not None and not args.review:
        raise ConfigError("--port is of the page of --review: add --review, or leave it out")
    if args.review and not find_spec("uvicorn"):
        raise UserError(
            "uvicorn is not installed; the page of --review needs\n"
            "  pip install -r requirements/serve.txt -c requirements/constraints.txt"
        )
    announce(args.model)
    from negvision.audit.data import find_leaf, open_data
    from negvision.audit.decisions import FILE_NAME, Decisions
    from negvision.data.suspects import Suspects
    from negvision.engine.prepare import prepare_config
    from negvision.inference.inferencer import Inferencer
    from negvision.report.run_report import find_run

    found = find_run(args.model)
    if found.is_exported:
        raise ExportError(
            f"{found.checkpoint}: an exported model does not know its training; name the "
            "checkpoint or its work dir"
        )
    out = args.out or found.path / "audit"
    check_writable(out / "suspects.json")
    args.config = str(found.config)
    cfg = prepare_config(args)
    options = {"device": args.device, "trust_checkpoint": args.trust_checkpoint}
    model = Inferencer(args.config, found.checkpoint, **options)
    leaf = find_leaf(cfg, args.data, out, model.task)
    data = open_data(leaf, cfg.get("default_scope") or "mmengine", model)
    decisions = Decisions.load(out / FILE_NAME)
    path = out / "suspects.json"
    anew = args.method or args.folds or args.min_probability is not None
    if args.review and path.is_file() and not anew:
        audit = Suspects.load(path).check(data.ann_file, data.classes)
    else:
        audit = _audit(args, cfg, leaf, data, model, found.path, decisions, out)
    if args.review:
        _review(audit, decisions, _reader(data), 7861 if args.port is None else args.port)
    return 0


def _audit(args, cfg, leaf, data, model, work_dir, decisions: Decisions, out: Path) -> Suspects:
    from negvision.audit.outputs import counts_table, write_corrected, write_csv
    from negvision.audit.page import audit_page
    from negvision.audit.run import audit, findings_of, predict_folds, read_history, train_folds
    from negvision.audit.subject import LIKELY
    from negvision.visualization import shown_path

    method, history = "model", None
    if args.folds:
        method = "folds"
        models = train_folds(cfg, data, leaf, args.folds, out / "folds", _train)
        options = {"device": args.device, "trust_checkpoint": args.trust_checkpoint}
        predict_folds(data, models, partial(progress_bar, description="predicting"), **options)
    else:
        if args.method != "model":
            history = read_history(work_dir, data, cfg)
            method = "model" if history is None else "history"
        if args.method == "history" and history is None:
            print(
                f"note    {shown_path(work_dir)} has no history of its training; audited by the "
                "model alone. Train with --history"
            )
        places = range(len(data.predictions))
        data.predict(model, places, partial(progress_bar, description="predicting"))
    findings = findings_of(data, history)
    if others := _other_splits(cfg, args.data, data):
        findings.append(data.split_findings(others, partial(progress_bar, description="comparing")))
    likely = LIKELY if args.min_probability is None else args.min_probability
    audited, decided = audit(data, method, findings, decisions, likely)
    facts = {
        "run": shown_path(work_dir),
        "annotations": shown_path(audited.ann_file) if audited.ann_file else "a folder",
        "method": {
            "model": "one model",
            "history": "one model, and the losses of its training",
            "folds": f"{args.folds} models, each without the images that it judges",
        }[method],
        "images": f"{len(data.predictions):,}",
    }
    audited.save(out / "suspects.json")
    write_csv(audited, out / "suspects.csv")
    written = ["suspects.json", "suspects.csv", "audit.html"]
    if model.task == "detection":
        write_corrected(audited, decided, out / "corrected.json")
        written.append("corrected.json")
    write_page(out / "audit.html", audit_page(audited, _reader(data), facts, decided))
    print(f"method  {facts['method']}\nimages  {facts['images']}\n")
    print(counts_table(audited.found))
    if decisions.made:
        print(
            f"\ndecisions taken into account: {len(decisions.made):,}; rejected ones are left out"
        )
    print(f"\nwritten to {shown_path(out)}: {', '.join(written)}")
    return audited


def _other_splits(cfg, given: str | None, data: Audited) -> dict[str, list]:
    """The data sets of val and test, where these are images of their own."""
    from mmengine.registry import DefaultScope

    from negvision.audit.data import paths_of, reading
    from negvision.compat.patches import captured_pycocotools
    from negvision.engine.config.data_files import leaf_datasets
    from negvision.registry import DATASETS

    if given is not None:
        return {}  # annotations of its own
    found: dict[str, list] = {}
    seen: list[set[str]] = []
    scope = cfg.get("default_scope") or "mmengine"
    for split in ("val", "test"):
        sets: list = []
        paths: set[str] = set()
        for leaf in leaf_datasets((cfg.get(f"{split}_dataloader") or {}).get("dataset")):
            try:
                with DefaultScope.overwrite_default_scope(scope), captured_pycocotools():
                    dataset = DATASETS.build({**leaf, "pipeline": reading(leaf)})
            except (UserError, FileNotFoundError):
                continue  # missing on this machine, and not under audit
            sets.append(dataset)
            paths.update(paths_of(dataset))
        # A set that validates on its training images says nothing; test is often val.
        if paths and not paths <= set(data.paths) and paths not in seen:
            seen.append(paths)
            found[split] = sets
    return found


def _train(cfg) -> None:
    from negvision.compat.patches import captured_pycocotools
    from negvision.engine.config.settings import check_settings
    from negvision.engine.prepare import build_runner

    check_settings(cfg, ("train", "val"))
    with captured_pycocotools():
        build_runner(cfg, ("train", "val")).train()


def _reader(data: Audited) -> Callable:
    """From the name of an image to its pixels, RGB."""
    import numpy as np

    places = {name: place for place, name in enumerate(data.names)}

    @lru_cache(maxsize=8)
    def read(name: str):
        return np.ascontiguousarray(data.image(places[name])[..., ::-1])

    return read


def _review(audit: Suspects, decisions: Decisions, read: Callable, port: int) -> None:
    from negvision.cli.serving.review import MAX_BODY, ReviewApp
    from negvision.cli.serving.server import Guarded, listen, serve, url_of

    with listen("127.0.0.1", port) as bound:
        print(f"page  {url_of(bound)}  (Ctrl-C stops it; decisions: {decisions.path})", flush=True)
        app = ReviewApp(audit.found, decisions, read)
        serve(Guarded(app, MAX_BODY, ("127.0.0.1", "localhost")), bound)

"""Make a model smaller in rounds, as long as the classes that matter are still found."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate

from negvision.benchmark.cost import operations_of, write_model
from negvision.benchmark.measure import images_per_second
from negvision.benchmark.subjects import CONFIG, Setup, build, images_of
from negvision.bootstrap import RESAMPLES
from negvision.compat.patches import captured_pycocotools
from negvision.engine.checkpoints.channels import KEY, changed_channels
from negvision.engine.checkpoints.finding import find_resume_checkpoint
from negvision.engine.checkpoints.loading import load_checkpoint_file
from negvision.engine.config.check import plain_name
from negvision.engine.config.reading import load_config
from negvision.engine.prepare import build_runner
from negvision.engine.pruning import (
    check_sparsity,
    prunable,
    prune_channels,
    require_torch_pruning,
    sparse_masks,
)
from negvision.errors import CheckpointError, ConfigError, UserError, did_you_mean
from negvision.files import atomic_write
from negvision.inference.torch_model import TorchModel, task_of
from negvision.inference.weights import build_model, load_model
from negvision.report.class_outcomes import Outcomes, figures_of, outcomes_of
from negvision.report.page_parts import MetricRow, MetricTable
from negvision.report.rendering import cell, rendered

Log = Callable[[str], None]
State = Mapping[str, torch.Tensor]

# Recall that a protected class may lose if the user does not say what it must keep.
TOLERANCE = 0.02
ROUNDS_FILE, RESULT, PAGE = "rounds.json", "compressed.pth", "compression.html"
# Share of a training up to which a checkpoint tells how its weights began.
_EARLY = 0.1
# Hooks of a whole training that make no sense in a short one.
_LONG_HOOKS = ("EMAHook", "EarlyStoppingHook", "PipelineSwitchHook", "SampleHistoryHook")


@dataclass(frozen=True)
class Plan:
    """What is asked of a compression.

    Attributes:
        goal: "sparsity": share of the weights of each layer that is 0; "flops": operations as a
            share of the original's; "size": MB of the checkpoint.
        value: Of the goal.
        out: Folder of everything that is written.
        protect: Class to the recall that it must keep, or None for that of the original less
            ``TOLERANCE``.
        rounds: Of pruning and training.
        iters: Of a round's training; None for a tenth of the original's.
        rewind: Checkpoint from early in the training, or None to look for one beside the original.
        resume: Continue what is in ``out``.
        trust: Unpickle any object in a checkpoint.
        seconds: Measuring time for the speed of a model.
        resamples: For intervals.
    """

    goal: str
    value: float
    out: Path
    protect: Mapping[str, float | None] = field(default_factory=dict)
    rounds: int = 3
    iters: int | None = None
    rewind: Path | None = None
    resume: bool = False
    trust: bool = False
    seconds: float = 4.0
    resamples: int = RESAMPLES

    def target(self, number: int, start: float) -> float:
        """The value after a round, from 1 on: what is left falls by the same factor in each."""
        done = number / self.rounds
        if self.goal == "sparsity":
            return 1 - (1 - self.value) ** done
        return start * (self.value / start) ** done


class Compression:
    """Prune, train and measure in rounds; the best round that holds is the result.

    Args:
        cfg: Checked, with a training and a validation set; of a detector, segmentor or classifier.
        checkpoint: Its weights.
        plan: What is asked for.
        log: Receives lines of text.

    Attributes:
        rounds: Figures of each round, as in ``rounds.json``.
        original: The same of the original.
    """

    def __init__(self, cfg: Config, checkpoint: Path, plan: Plan, log: Log) -> None:
        self.cfg, self.checkpoint, self.plan, self.log = cfg.copy(), checkpoint, plan, log
        self.cfg.model = _without_init(cfg.model.to_dict())
        # Rounds are chosen by the validation set, so that the test set can judge the result.
        self._test = {
            key: cfg.get(key) for key in ("test_dataloader", "test_evaluator", "test_cfg")
        }
        for part in ("dataloader", "evaluator"):
            self.cfg[f"test_{part}"] = cfg.get(f"val_{part}") or cfg.get(f"test_{part}")
        self.cfg.test_cfg = cfg.get("test_cfg") or {}
        if not self.cfg.get("train_dataloader") or not self.cfg.get("test_dataloader"):
            raise ConfigError(
                "the config has no train_dataloader or no val_dataloader: negvision compress "
                "trains the pruned model and measures it"
            )
        self.meta = (
            load_checkpoint_file(checkpoint, "cpu", plan.trust, mapped=True).get("meta") or {}
        )
        self.model = load_model(self.cfg, checkpoint, plan.trust)[0]
        if task_of(self.model) == "face":
            raise ConfigError(
                f"{checkpoint}: is a face recognizer; negvision compress takes detectors, "
                "segmentors and classifiers"
            )
        self.iters = plan.iters or int(self.meta.get("iter") or 0) // 10
        if self.iters < 1:
            raise ConfigError(
                f"{checkpoint} does not say how long it was trained: give the iterations of a "
                "round, --iters N"
            )
        self.rounds: list[dict[str, Any]] = []
        self.original: dict[str, Any] = {}
        self._setups: dict[str, Setup] = {}

    def run(self) -> int:
        """Compress; 0 if the goal is reached and every protected class holds, otherwise 2.

        Raises:
            UserError: The goal cannot be reached, a class is unknown, or a recall is above that of
                the original; before anything is trained.
        """
        with tempfile.TemporaryDirectory(prefix="negvision_compress_") as folder:
            self._scratch = Path(folder)
            self._begin()
            start = {"flops": 1.0, "size": self.original["bytes"] / 1e6}.get(self.plan.goal, 0.0)
            for number in range(1, self.plan.rounds + 1):
                if number > len(self.rounds):
                    row = self._round(number, self.plan.target(number, start))
                    self.rounds.append(row)
                    self._save()
                self.log(self._line(self.rounds[number - 1]))
                if not self.rounds[number - 1]["holds"]:
                    break
            return self._finish()

    # Before the first round.

    def _begin(self) -> None:
        plan, record = self.plan, self.plan.out / ROUNDS_FILE
        if plan.goal != "sparsity":
            require_torch_pruning()
        settings = {
            "goal": plan.goal, "value": plan.value, "protect": dict(plan.protect),
            "rounds": plan.rounds, "iters": self.iters, "checkpoint": str(self.checkpoint),
            "rewind": plan.rewind and str(plan.rewind),
        }  # fmt: skip
        content = json.loads(record.read_text("utf-8")) if record.is_file() else None
        if content is not None and not plan.resume:
            raise UserError(
                f"{plan.out} holds a compression: continue it with --resume, or give another --out"
            )
        if content is not None and content["settings"] != settings:
            changed = [key for key in settings if content["settings"].get(key) != settings[key]]
            raise UserError(
                f"--resume: the compression in {plan.out} has another {', '.join(changed)}. Repeat "
                "its options, or give another --out"
            )
        self.settings = settings
        plan.out.mkdir(parents=True, exist_ok=True)
        self._base, size = outcomes_of(self.cfg, self.checkpoint, self._scratch / "original")
        self._write_setup("original", self.cfg, self.checkpoint, size)
        self._inputs = _inputs_of(self._setups["original"])
        if content is not None:
            self.original, self.rounds = content["original"], content["rounds"]
        else:
            file = self._scratch / "weights.pth"
            self._write(file, self.model.state_dict(), self.cfg, {})
            self.original = self._measured("original", self.model, file, self._base)
            self._check_feasible()
            self._save()
        self.required = self._required()
        self.log(f"original: {self._cost_line(self.original)}")
        for name, least in self.required.items():
            recall = self.original["classes"][name]["recall"]
            self.log(f"protected: {name}, recall {_range(recall)}, at least {least:.3f} is to stay")
        if plan.goal == "sparsity":
            self._find_early()

    def _check_feasible(self) -> None:
        plan, before = self.plan, self.original
        self._required(before)
        if plan.goal == "sparsity":
            check_sparsity(prunable(self.model), plan.value)
            return
        start, unit = (1.0, "") if plan.goal == "flops" else (before["bytes"] / 1e6, " MB")
        if plan.value >= start:
            raise UserError(
                f"--{plan.goal} {plan.value:g}: the original has {start:.3g}{unit}, so there is "
                "nothing to prune"
            )
        trial = load_model(self.cfg, self.checkpoint, plan.trust)[0]
        left = plan.value / start
        if not prune_channels(trial, self._inputs["inputs"], self._reached(plan.value), left):
            reached = self._amount(trial)
            raise UserError(
                f"--{plan.goal} {plan.value:g} cannot be reached: a channel of every layer must "
                f"stay, and then {reached:.3g}{unit} is left. Give more"
            )

    def _required(self, row: Mapping | None = None) -> dict[str, float]:
        """The least recall of each protected class."""
        known, required = (row or self.original)["classes"], {}
        for name, wanted in self.plan.protect.items():
            if name not in known:
                raise UserError(
                    f"--protect {name}: the model has no such class{did_you_mean(name, known)}; it "
                    f"has {', '.join(known)}"
                )
            own = known[name]["recall"][0]
            if own is None:
                raise UserError(
                    f"--protect {name}: the validation set has no {name}, so its recall is unknown"
                )
            if wanted is not None and wanted > own:
                raise UserError(
                    f"--protect {name}={wanted:g}: the original has a recall of {own:.4f} itself. "
                    "Give at most that"
                )
            required[name] = max(own - TOLERANCE, 0.0) if wanted is None else wanted
        return required

    def _find_early(self) -> None:
        """The weights that magnitudes are compared with, and those that training starts from."""
        start = rewind = self.plan.rewind
        trained = int(self.meta.get("iter") or 0)
        if start is None:
            earlier = _earlier(self.checkpoint, self.meta, self.plan.trust)
            # Later on, weights that are large already have stopped growing.
            start = next((file for at, file in earlier if at <= _EARLY * trained), None)
            # So far back that a round trains as long as the original did from there.
            fitting = [file for at, file in earlier if at >= trained - self.iters]
            rewind = fitting[0] if fitting else self.checkpoint
        self._start = None if start is None else self._state(start)
        self._rewound = self._state(rewind or self.checkpoint)
        since = f"growth of the magnitude since {start}"
        if start is None:
            since = "the magnitude, since no checkpoint from early in this training is beside it"
        self.log(f"criterion: {since}\nrewound: each round trains on from the weights of {rewind}")

    def _state(self, file: Path) -> State:
        return load_model(self.cfg, file, self.plan.trust)[0].state_dict()

    # A round.

    def _round(self, number: int, target: float) -> dict[str, Any]:
        out = self.plan.out
        start, work, file = (out / f"round_{number}{end}" for end in ("_start.pth", "", ".pth"))
        if not start.is_file():
            self._prune(number, target, start)
        cfg = self._config_of(start)
        self._train(number, cfg, start, work)
        trained = find_resume_checkpoint(work, self.plan.trust) or start
        model = load_model(cfg, trained, self.plan.trust)[0]
        found, size = outcomes_of(cfg, trained, self._scratch / f"round_{number}")
        added = found.threshold.as_meta() if found.threshold else {}
        self._write(file, model.state_dict(), cfg, added)
        name = f"round {number}"
        self._write_setup(name, cfg, file, size)
        row: dict[str, Any] = {
            "round": number,
            "target": target,
            **self._measured(name, model, file, found),
        }
        recalls = {one: row["classes"][one]["recall"][0] for one in self.required}
        row["holds"] = all(recalls[one] >= least - 1e-9 for one, least in self.required.items())
        shutil.rmtree(work, ignore_errors=True)
        return row

    def _prune(self, number: int, target: float, file: Path) -> None:
        before = self.checkpoint if number == 1 else self.plan.out / f"round_{number - 1}.pth"
        cfg = self.cfg if number == 1 else self._config_of(before)
        model = load_model(cfg, before, self.plan.trust)[0]
        if self.plan.goal == "sparsity":
            now = {name: weight.detach() for name, weight in prunable(model).items()}
            state = {name: value.clone() for name, value in self._rewound.items()}
            for name, mask in sparse_masks(now, self._start, target).items():
                state[name] *= mask
        else:
            left = min(target / self._amount(model), 1.0)
            prune_channels(model, self._inputs["inputs"], self._reached(target), left)
            state = model.state_dict()
            cfg = self.cfg.copy()
            cfg[KEY] = changed_channels(model, build_model(self._full()))
        self._write(file, state, cfg, {})

    def _train(self, number: int, cfg: Config, start: Path, work: Path) -> None:
        cfg = cfg.copy()
        latest = find_resume_checkpoint(work, self.plan.trust) if work.is_dir() else None
        cfg.load_from, cfg.resume = str(latest or start), latest is not None
        cfg.work_dir = str(work)
        cfg.experiment_name = f"compress_{self.plan.out.name}_{number}"
        for part in ("dataloader", "cfg", "evaluator"):
            cfg[f"val_{part}"] = None
        count, warmup = self.iters, min(self.iters // 10, 100)
        cfg.train_cfg = {"type": "IterBasedTrainLoop", "max_iters": count, "val_interval": count}
        cosine = {"type": "CosineAnnealingLR", "eta_min": 0.0, "by_epoch": False}
        cfg.param_scheduler = [{**cosine, "begin": warmup * (warmup > 1), "end": count}]
        if warmup > 1:  # MMEngine's schedule of one step stays where it starts
            linear = {"type": "LinearLR", "start_factor": 0.01, "by_epoch": False}
            cfg.param_scheduler.insert(0, {**linear, "begin": 0, "end": warmup})
        hooks = [
            hook
            for hook in cfg.get("custom_hooks") or []
            if not plain_name(hook["type"]).endswith((*_LONG_HOOKS, "SheetHook"))
        ]
        if self.plan.goal == "sparsity":
            hooks.append({"type": "negvision.KeepZerosHook"})
        if self.plan.protect:
            protected = list(self.plan.protect)
            hooks.append({"type": "negvision.ProtectedClassHook", "classes": protected})
        cfg.custom_hooks = hooks
        default = dict(cfg.get("default_hooks") or {})
        interval = max(count // 4, 1)
        default["checkpoint"] = {
            "type": "CheckpointHook", "by_epoch": False, "interval": interval, "max_keep_ckpts": 1,
        }  # fmt: skip
        default.pop("visualization", None)
        if default.get("logger"):
            default["logger"] = {**default["logger"], "log_metric_by_epoch": False}
        cfg.default_hooks = default
        cfg.log_processor = {"by_epoch": False}
        seed = (cfg.get("randomness") or {}).get("seed") or 0
        cfg.randomness = {"seed": seed + number}
        if cfg.get("visualizer"):
            cfg.visualizer.update(name=cfg.experiment_name, vis_backends=None)
        with captured_pycocotools():
            build_runner(cfg, ("train",)).train()

    # Measuring.

    def _measured(self, name: str, model: torch.nn.Module, file: Path, found: Outcomes) -> dict:
        subjects = {one: build("eager", self._setups[one]) for one in {"original": 0, name: 0}}
        rates = images_per_second(subjects, 1, self.plan.seconds)
        weights = prunable(model).values()
        zero = sum(int((weight == 0).sum()) for weight in weights)
        return {
            "operations": self._operations(model),
            "parameters": sum(one.numel() for one in model.parameters()),
            "sparsity": zero / max(sum(weight.numel() for weight in weights), 1),
            "bytes": file.stat().st_size,
            "images_per_s": float(np.median(rates[name])),
            "original_images_per_s": float(np.median(rates["original"])),
            "classes": figures_of(found, self._base, self.plan.resamples),
        }

    def _operations(self, model: torch.nn.Module) -> int:
        model.eval()
        with torch.no_grad():
            return operations_of(lambda: model(**self._inputs, mode="predict"))

    def _amount(self, model: torch.nn.Module) -> float:
        """What the goal counts: the share of the operations, or MB of the file."""
        if self.plan.goal == "flops":
            return self._operations(model) / self.original["operations"]
        extra = self.original["bytes"] - _bytes_of(self.model)
        # The sizes of the layers are stored too.
        return (_bytes_of(model) + extra + (1 << 14)) / 1e6

    def _reached(self, target: float) -> Callable[[torch.nn.Module], bool]:
        return lambda model: self._amount(model) <= target

    # Files.

    def _full(self) -> Config:
        cfg = self.cfg.copy()
        cfg.pop(KEY, None)
        return cfg

    def _config_of(self, file: Path) -> Config:
        """The config, with the channels that a file of this compression has."""
        cfg = self.cfg.copy()
        channels = load_checkpoint_file(file, "cpu", mapped=True)["meta"]["channels"]
        if channels:
            cfg[KEY] = channels
        return cfg

    def _write(self, file: Path, state: State, cfg: Config, added: Mapping) -> None:
        meta = {key: self.meta[key] for key in ("dataset_meta",) if key in self.meta}
        channels, cfg = cfg.get(KEY), cfg.copy()
        for key, value in self._test.items():
            cfg[key] = value
        meta |= {"cfg": cfg.pretty_text, "channels": channels and dict(channels), **added}
        with atomic_write(file, error=CheckpointError) as partial:
            torch.save({"state_dict": dict(state), "meta": meta}, partial)

    def _write_setup(self, name: str, cfg: Config, file: Path, size: tuple[int, int]) -> None:
        folder = self._scratch / f"speed {name}"
        folder.mkdir()
        model, size = write_model(cfg, str(file), size, folder)
        threads = torch.get_num_threads()
        self._setups[name] = Setup(size, task_of(model), folder, threads=threads)

    def _save(self) -> None:
        content = {"settings": self.settings, "original": self.original, "rounds": self.rounds}
        with atomic_write(self.plan.out / ROUNDS_FILE) as partial:
            partial.write_text(json.dumps(content, indent=1), encoding="utf-8")

    # What is said in the end.

    def _line(self, row: Mapping) -> str:
        recalls = ", ".join(
            f"{name} {_range(one['recall'])}" for name, one in row["classes"].items()
        )
        lost = "" if row["holds"] else "\n  lost: " + self._losses(row)
        head = f"round {row['round']} of {self.plan.rounds}: {self._cost_line(row)}"
        return f"{head}\n  recall: {recalls}{lost}"

    def _losses(self, row: Mapping) -> str:
        short = {
            name: row["classes"][name]["recall"][0]
            for name, least in self.required.items()
            if row["classes"][name]["recall"][0] < least - 1e-9
        }
        return ", ".join(
            f"recall of {name} {value:.3f}, below {self.required[name]:.3f}"
            for name, value in short.items()
        )

    def _cost_line(self, row: Mapping) -> str:
        part = row["operations"] / self.original["operations"]
        return (
            f"{row['operations'] / 1e9:.3g} GFLOP ({part:.0%}), {row['bytes'] / 1e6:.3g} MB, "
            f"{row['sparsity']:.1%} of the weights are 0, {row['images_per_s']:.4g} images/s "
            f"(original {row['original_images_per_s']:.4g})"
        )

    def _finish(self) -> int:
        kept = [row for row in self.rounds if row["holds"]]
        best, last = kept[-1] if kept else None, self.rounds[-1]
        done = best is not None and best["round"] == self.plan.rounds and self._meets(best)
        said = f"--{self.plan.goal} {self.plan.value:g}"
        if best is None:
            verdict = (
                f"{said} was not reached: after the first round {self._losses(last)}. Give more "
                "--rounds, so that each prunes less, or more --iters to train again"
            )
        else:
            result = self.plan.out / RESULT
            with atomic_write(result) as partial:
                shutil.copyfile(self.plan.out / f"round_{best['round']}.pth", partial)
            verdict = f"{result} has {self._cost_line(best)}."
            if not done:
                why = self._losses(last) if not last["holds"] else "its last round fell short"
                verdict = (
                    f"{said} was not reached: {why}. The best round that holds is kept: {verdict}"
                )
        lost = [key for key in ("ood", "calibration") if key in self.meta]
        if lost and best is not None:
            words = {"ood": "its OOD threshold", "calibration": "the calibration of its scores"}
            verdict += (
                f" It has lost {' and '.join(words[key] for key in lost)}: calibrate it again."
            )
        with atomic_write(self.plan.out / PAGE) as partial:
            partial.write_text(self._page(best, verdict), encoding="utf-8")
        self.log(f"page: {self.plan.out / PAGE}\n{verdict}")
        return 0 if done else 2

    def _meets(self, row: Mapping) -> bool:
        value = self.plan.value
        if self.plan.goal == "sparsity":
            # Layers round to whole weights.
            return row["sparsity"] >= value - 0.005
        if self.plan.goal == "flops":
            return row["operations"] <= value * self.original["operations"] * (1 + 1e-9)
        return row["bytes"] <= value * 1e6

    def _page(self, best: Mapping | None, verdict: str) -> str:
        names = ("recall", "precision", "missed")
        heads = {"recall": "recall", "precision": "precision", "missed": "false negatives"}
        sides = {"original": self.original, "compressed": best or self.rounds[-1]}
        rows = [
            MetricRow(
                name + (" (protected)" if name in self.required else ""),
                [
                    sides["original"]["classes"][name]["objects"],
                    *(
                        _cell(side["classes"][name][key])
                        for key in names
                        for side in sides.values()
                    ),
                ],
            )
            for name in self.original["classes"]
        ]
        columns = ["objects", *(f"{heads[key]}, {side}" for key in names for side in sides)]
        caption = (
            "On the validation set, by which rounds were kept: judge the result on other images. "
            "Each class has as many false positives as the original has at its own threshold. "
            "In parentheses 95 % intervals from resampled images."
        )
        classes = MetricTable("Classes", "class", columns, rows, caption, compared=None)
        measured = [("original", self.original)]
        measured += [(f"round {row['round']}", row) for row in self.rounds]
        columns = ["GFLOP", "weights", "share of 0", "MB", "images/s", "of the original", "kept"]
        rows = [
            MetricRow(
                name,
                [
                    row["operations"] / 1e9, row["parameters"], row["sparsity"], row["bytes"] / 1e6,
                    row["images_per_s"], row["images_per_s"] / row["original_images_per_s"],
                    "yes" if row is best else "",
                ],
            )
            for name, row in measured
        ]  # fmt: skip
        caption = (
            "Operations and speed of one image in PyTorch; the original is measured again in each "
            "round, in turns. Weights of 0 make a model neither smaller nor faster by themselves."
        )
        costs = MetricTable("Rounds", "", columns, rows, caption, compared=None)
        facts = {
            "checkpoint": str(self.checkpoint),
            "goal": f"{self.plan.goal} {self.plan.value:g}",
            "rounds": f"{len(self.rounds)} of {self.plan.rounds}, {self.iters:,} iterations each",
            "images": f"{len(self._base.objects):,}",
        }
        return rendered(
            "compression_page.html",
            title=f"Compression of {self.checkpoint.name}",
            command="compress",
            source="",
            anchors={"compression": "Compression"},
            facts=facts,
            verdict=verdict,
            tables=[classes, costs],
        )


def _inputs_of(setup: Setup) -> dict[str, Any]:
    """One preprocessed image, as ``forward`` of a model takes it."""
    cfg = load_config(setup.folder / CONFIG)
    model = TorchModel(cfg, build_model(cfg).eval())
    batch = next(model.batches(images_of(setup)[:1]))
    return model.model.data_preprocessor(pseudo_collate(batch), False)


def _earlier(checkpoint: Path, meta: Mapping, trust: bool) -> list[tuple[int, Path]]:
    """Checkpoints of the same training beside ``checkpoint`` with fewer iterations, by these."""
    found = []
    for file in checkpoint.parent.glob("*.pth"):
        if file == checkpoint:
            continue
        try:
            other = load_checkpoint_file(file, "cpu", trust, mapped=True).get("meta") or {}
        except CheckpointError:
            continue
        same = all(other.get(key) == meta.get(key) for key in ("cfg", "seed", "experiment_name"))
        if same and int(other.get("iter") or 0) < int(meta.get("iter") or 0):
            found.append((int(other.get("iter") or 0), file))
    return sorted(found)


def _without_init(part: Any) -> Any:
    """The config of a model that loads no other weights first."""
    if isinstance(part, dict):
        return {
            key: None if key == "init_cfg" else _without_init(value) for key, value in part.items()
        }
    if isinstance(part, list | tuple):
        return type(part)(map(_without_init, part))
    return part


def _bytes_of(model: torch.nn.Module) -> int:
    return sum(one.numel() * one.element_size() for one in model.state_dict().values())


def _range(values: Sequence[float | None]) -> str:
    value, low, high = values
    if value is None:
        return "-"
    return f"{value:.3f}" + (f" ({low:.3f} to {high:.3f})" if None not in (low, high) else "")


def _cell(values: Sequence[float | None]) -> str:
    if values[0] is None:
        return cell(None)
    digits = 0 if (values[0] > 1 or (values[2] is not None and values[2] > 1)) else 3
    value, *ends = (None if one is None else f"{one:,.{digits}f}" for one in values)
    return f"{value} ({ends[0]} to {ends[1]})" if None not in ends else str(value)

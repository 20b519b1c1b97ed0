"""Plots show the metrics, and stay small."""

import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
import torch
from matplotlib.axes import Axes

from negvision.ood import ood_metrics
from negvision.report.plots import (
    histogram,
    pr_plot,
    roc_plot,
    thinned,
    weighted_quantiles,
)


def values(count: int, shift: float = 1.0, seed: int = 0):
    rng = np.random.default_rng(seed)
    is_ood = rng.random(count) < 0.3
    scores = rng.normal(size=count) + shift * is_ood
    return ood_metrics(torch.from_numpy(scores), torch.from_numpy(is_ood))


def drawn_lines(monkeypatch) -> list[tuple[np.ndarray, np.ndarray, dict]]:
    """The lines drawn from now on."""
    lines, plot = [], Axes.plot
    monkeypatch.setattr(
        Axes, "plot", lambda self, x, y, **kw: lines.append((x, y, kw)) or plot(self, x, y, **kw)
    )
    return lines


@pytest.mark.parametrize(("positive", "name"), [("OOD", "ap_out"), ("ID", "ap_in")])
def test_area_below_the_steps_of_precision_is_ap(monkeypatch, positive, name):
    levels = []
    monkeypatch.setattr(Axes, "axhline", lambda self, y, **kwargs: levels.append(y))
    lines = drawn_lines(monkeypatch)
    metrics = values(3000)
    pr_plot({"abet": metrics}, positive)
    [(recall, precision, style)] = lines
    assert style["drawstyle"] == "steps-pre"
    area = np.sum(np.diff(recall) * precision[1:])
    assert area == pytest.approx(getattr(metrics, name), abs=5e-3)
    prevalence = metrics.prevalence
    assert levels == [pytest.approx(prevalence if positive == "OOD" else 1 - prevalence)]


def test_histogram_has_area_one_by_weight(monkeypatch):
    drawn = []
    monkeypatch.setattr(Axes, "stairs", lambda self, values, edges, **kw: drawn.append(values))
    scores = np.array([0.0, 0.0, 1.0, 1.0, 2.0, 2.0], dtype=np.float32)
    is_ood = np.array([0, 0, 0, 1, 1, 1], dtype=bool)
    weights = np.array([1.0, 1.0, 2.0, 1.0, 3.0, 4.0])
    plot, outside = histogram(scores, is_ood, ("ID", "OOD"), "abet", "Scores", weights)
    assert outside == 0 and plot.alt == "Scores; mean of ID 0.500, of OOD 1.875."
    id_density, _, ood_density, _ = drawn
    width = 2 / len(id_density)
    assert id_density.sum() * width == pytest.approx(1)
    assert ood_density.sum() * width == pytest.approx(1)
    assert id_density[0] * width == pytest.approx(0.5)
    assert ood_density[-1] * width == pytest.approx(7 / 8)


def test_roc_encloses_auroc_and_the_own_score_is_on_top(monkeypatch):
    lines = drawn_lines(monkeypatch)
    by_score = {"abet": values(3000), "msp": values(3000, 0.3)}
    roc_plot(by_score)
    (x, y, _), *others = lines
    assert (x, y) == ([0, 1], [0, 1])
    for (x, y, _), metrics in zip(others, reversed(by_score.values()), strict=True):
        assert np.trapezoid(y, x) == pytest.approx(metrics.auroc, abs=2e-3)
        assert (x[0], y[0], x[-1], y[-1]) == (0, 0, 1, 1)


def test_histogram_of_equal_scores_with_a_threshold_and_a_name_like_a_formula(monkeypatch):
    at = []
    monkeypatch.setattr(Axes, "axvline", lambda self, x, **kwargs: at.append(x))
    is_ood = np.array([True, False, True, False])
    for threshold in (None, 3.2, 7.0):
        name = r"$\frac{<b>$"
        plot, outside = histogram(
            np.full(4, 3.0), is_ood, ("a", "b"), name, "t", threshold=threshold
        )
        assert outside == 0 and r"$\frac{&lt;b&gt;$" in plot.svg
    assert at == [3.2]


def test_far_outliers_do_not_stretch_the_histogram(monkeypatch):
    edges = []
    monkeypatch.setattr(Axes, "stairs", lambda self, values, at, **kw: edges.append(at))
    scores = np.random.default_rng(0).normal(size=4000)
    scores[:4] = 1e6
    is_ood = np.arange(4000) % 2 == 0
    _, outside = histogram(scores, is_ood, ("a", "b"), "abet", "t", tail=0.005)
    assert 0.001 <= outside < 0.03 and edges[0].max() < 5


def test_svg_is_reproducible_and_without_group_ids_and_links():
    metrics = values(50)
    text = roc_plot({"abet": metrics}).svg
    assert roc_plot({"abet": metrics}).svg == text
    root = ElementTree.fromstring(text)
    assert root.tag.endswith("svg") and root.get("viewBox") and root.get("width") is None
    assert not [
        element for element in root.iter() if element.tag.endswith("}g") and "id" in element.attrib
    ]
    assert not re.search(r'(href|src)="http', text)
    assert ">TPR: share of OOD found</text>" in text  # text, not outlines


def test_thinned_line_stays_close_and_keeps_its_ends():
    rng = np.random.default_rng(0)
    x, y = np.sort(rng.random(50_000)), np.sort(rng.random(50_000))
    few_x, few_y = thinned(x, y, 0.01)
    assert len(few_x) < 250
    assert (few_x[0], few_y[-1]) == (x[0], y[-1])
    assert np.abs(np.interp(x, few_x, few_y) - y).max() < 0.012


def test_weighted_quantiles_equal_those_of_repeated_values():
    rng = np.random.default_rng(0)
    numbers, weights = rng.normal(size=40), rng.integers(1, 5, 40)
    shares = [0.005, 0.31, 0.5, 0.77, 0.999]
    oracle = np.quantile(np.repeat(numbers, weights), shares, method="inverted_cdf")
    assert weighted_quantiles(numbers, weights.astype(float), shares).tolist() == oracle.tolist()
    assert weighted_quantiles(numbers, None, [0.0, 1.0]).tolist() == [numbers.min(), numbers.max()]

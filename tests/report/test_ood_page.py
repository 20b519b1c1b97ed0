"""The content of an OOD page, read as HTML."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers.pages import Page
from setuptools import Distribution
from setuptools.config.pyprojecttoml import apply_configuration

import negvision
from negvision.ood.records import REFERENCE_PREVALENCE, evaluate_records, per_image_values
from negvision.report.ood_page import ood_page

ROOT = Path(__file__).parents[2]


def test_metrics_are_those_of_the_evaluation(records):
    page = Page(ood_page(records, "A title", "run/ood_scores.npz", resamples=40))
    evaluation = evaluate_records(records, 40)
    for name, metrics in evaluation.by_score.items():
        expected = [*metrics.as_dict().values(), metrics.ap_at(REFERENCE_PREVALENCE)]
        cells = page.row(name)[1:]
        assert [cell.split()[0] for cell in cells] == [f"{value:.4f}" for value in expected]
        for cell, (low, high) in zip(cells, metrics.intervals.values(), strict=False):
            shown = [float(end) for end in re.split("\N{EN DASH}", cell.split()[1])]
            assert shown == pytest.approx([low, high], abs=5.1e-3)
        assert len(metrics.intervals) == 5
    first = evaluation.by_score["abet"]
    chance = [0.5, first.prevalence, 1 - first.prevalence, 0.95, 0.95, 0.1]
    assert page.row("chance level")[1:] == [f"{value:.4f}" for value in chance]
    assert f"{first.num_ood:,.0f}" in page.text and f"{first.num_id:,.0f}" in page.text
    assert "OOD is the positive class, and a higher score is more OOD" in page.text
    for text in ("A title", "run/ood_scores.npz", f"negvision {negvision.__version__}"):
        assert text in page.text


def test_notes_and_groups_are_shown(records):
    page = Page(ood_page(records, "t", resamples=2))
    for key in records.notes:
        assert key in page.text
    threshold = {
        "boxes": "the model's threshold, 1.5",
        "pixels": "the threshold with the best F1 of pixels, 1.2",
    }
    assert (records.task in threshold) == ("higher scores are called unknown" in page.text)
    assert threshold.get(records.task, "") in page.text
    for parts in evaluate_records(records, 2).strata.values():
        for part in parts:
            auroc = f"{part.metrics.auroc:.4f}"
            shown = [part.name, f"{part.num_ood:,}", f"{part.num_id:,}", auroc]
            assert page.row(part.name)[:4] == shown
        aurocs = [part.metrics.auroc for part in parts]
        assert page.row("gap")[3] == f"{max(aurocs) - min(aurocs):.4f}"


def test_group_without_ood_has_dashes_and_no_gap(make_records):
    records = make_records("images")
    strata = {"kind": (["known", "both"], (records.is_ood | (np.arange(30) % 2)).astype(int))}
    page = Page(ood_page(replace(records, strata=strata), "t", resamples=2))
    assert page.row("known")[1] == "0"
    assert set(page.row("known")[3:8]) == {"\N{EN DASH}"}
    assert set(page.row("gap")[3:8]) == {"\N{EN DASH}"}


def test_pixels_are_shown_image_by_image(make_records):
    records = make_records("pixels")
    page = Page(ood_page(records, "t", resamples=2))
    aurocs = {index: one.auroc for index, one in per_image_values(records).items()}
    assert page.row("lowest")[1] == f"{min(aurocs.values()):.4f}"
    assert page.row("median")[1] == f"{np.median(list(aurocs.values())):.4f}"
    assert page.row("highest")[1] == f"{max(aurocs.values()):.4f}"
    worst = min(aurocs, key=aurocs.get)
    following = page.rows[page.rows.index(page.row("images with the lowest")) + 1]
    assert following[:2] == [records.paths[worst], f"{aurocs[worst]:.4f}"]
    assert "1,800 pixels are in the file" in page.text
    page = Page(ood_page(make_records("pixels", num_images=1), "t", resamples=2))
    assert "Fewer than two images have OOD and ID pixels" in page.text


def test_one_score_without_notes_and_groups(make_records):
    records = make_records("images", num_images=3)
    records = replace(records, scores={"abet": np.zeros(3)}, labels=None, notes={})
    page = Page(ood_page(records, "t"))
    assert page.row("abet")[1] == "0.5000"
    assert "There are no intervals" in page.text
    assert "None: no OOD image scores lower than an ID image" in page.text
    assert "Notes of the evaluation" not in page.text and "By group" not in page.text


def test_names_are_escaped(make_records):
    records = make_records("boxes", num_images=10)
    evil = "<script>alert('x')</script>\"><img src=x onerror=y>"
    scores = dict(zip([evil, "b"], records.scores.values(), strict=False))
    codes = records.strata["box size"][1]
    records = replace(
        records,
        scores=scores,
        classes=[evil] * 3,
        paths=[evil, *records.paths[1:]],
        notes={evil: evil},
        strata={evil: ([evil] * 3, codes)},
    )
    text = ood_page(records, evil, evil, resamples=2)
    page = Page(text)
    assert "<script" not in text and "onerror=y>" not in text
    assert "script" not in {tag for tag, _ in page.elements}
    assert evil in page.text
    assert all(source.startswith("data:image/jpeg;base64,") for source in page.attributes("src"))


def test_page_is_self_contained(records):
    page = Page(ood_page(records, "t", resamples=2))
    links = page.attributes("src") + page.attributes("href") + page.attributes("xlink:href")
    assert {link.partition(":")[0] if link[0] != "#" else "#" for link in links} == {"data", "#"}
    [policy] = [attrs["content"] for _, attrs in page.elements if "http-equiv" in attrs]
    assert policy.startswith("default-src 'none'") and "script" not in policy
    # Links inside the page lead somewhere, and to one place.
    ids = page.attributes("id")
    assert {link[1:] for link in links if link[0] == "#"} <= set(ids)
    for attrs in (attrs for tag, attrs in page.elements if tag == "img"):
        assert "alt" in attrs


def test_templates_are_packaged():
    project = apply_configuration(Distribution(), ROOT / "pyproject.toml")
    folder = ROOT / "negvision" / "report"
    packed = {
        path for glob in project.package_data["negvision.report"] for path in folder.glob(glob)
    }
    assert packed == set((folder / "templates").iterdir()) and len(packed) > 1

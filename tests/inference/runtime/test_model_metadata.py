"""Metadata of exported files are written, read, and checked."""

import json

import pytest

from negvision.errors import ExportError
from negvision.inference.runtime import Metadata
from negvision.inference.runtime.metadata import Preprocessing

OWN = Metadata(
    task="detection",
    preprocessing=Preprocessing((1333, 800), True, True, (1.5, 2.0, 3.0), (4.0, 5.0, 6.0), 32),
    classes=("a", "b"),
    ood_score="abet",
    ood_threshold=-3.25,
    ood_quantiles=(-9.0, -3.0, 0.5),
    tiles="640:0.2",
    versions={"torch": "2.11.0"},
    config="model = dict()\n",
)


def test_round_trip():
    assert Metadata.from_json(OWN.to_json(), "a.onnx") == OWN


def _changed(**values) -> str:
    content = json.loads(OWN.to_json())
    for key, value in values.items():
        part, _, name = key.rpartition("__")
        (content[part] if part else content)[name] = value
    return json.dumps(content)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "no negvision metadata"),
        ("", "no negvision metadata"),
        ("{", "malformed"),
        ("[]", "malformed"),
        ("{}", "malformed"),
        (_changed(format=2), "reads format 1"),
        (_changed(task="poetry"), "task is 'poetry'"),
        (_changed(tiles="9:9"), "tiles '9:9'"),
        (_changed(shoe_size=43), "shoe_size"),
        (_changed(preprocessing__std=[1.0, 0.0, 1.0]), "std"),
        (_changed(preprocessing__mean=None), "go together"),
        (_changed(preprocessing__pad_divisor=0), "pad_divisor is 0"),
        (_changed(preprocessing__scale=[0, 800]), "scale"),
        (_changed(ood_threshold=float("nan")), "not finite"),
        (_changed(ood_quantiles=(0.0, float("inf"))), "not finite"),
    ],
)
def test_invalid_metadata_are_an_error(text, message):
    with pytest.raises(ExportError, match=message) as caught:
        Metadata.from_json(text, "a.onnx")
    assert "a.onnx" in str(caught.value)

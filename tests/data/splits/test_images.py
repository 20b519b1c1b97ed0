"""Lists of labeled images."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from negvision.data.splits import (
    LabeledImage,
    join_image_parts,
    read_image_folder,
    read_image_list,
    split_images,
)
from negvision.errors import DatasetError

NAMES = ("cat", "dog", "ship", "truck")


@given(st.lists(st.sampled_from(NAMES)), st.sets(st.sampled_from(NAMES), min_size=1))
def test_every_image_is_in_one_list_with_its_label(names, held_out):
    remaining = [name for name in NAMES if name not in held_out]
    images = [LabeledImage(f"{i} {name}.png", name) for i, name in enumerate(names)]
    known, unknown = split_images(images, remaining)
    assert [line.rpartition(" ")[0] for line in known] == [
        image.path for image in images if image.name not in held_out
    ]
    for line in known:
        path, _, label = line.rpartition(" ")
        assert remaining[int(label)] == path.split()[1].removesuffix(".png")
    assert unknown == [f"{image.path} -1" for image in images if image.name in held_out]


def test_a_list_is_read(tmp_path):
    path = tmp_path / "train.txt"
    path.write_text("a b.png 1\n\nc.png 0\n")
    assert read_image_list(path, NAMES) == [("a b.png", "dog"), ("c.png", "cat")]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            "a.png 1\nb.png 4\nc.png -1\n",
            r"2 x label that is not in 0 \.\.\. 3\n.*txt:2: 'b.png 4'",
        ),
        ("a.png cat\n", "1 x label that is not an integer"),
        ("a.png\n", "1 x line that is not 'path label'"),
        ("\n", "the list is empty"),
    ],
)
def test_invalid_lists(tmp_path, text, says):
    path = tmp_path / "train.txt"
    path.write_text(text)
    with pytest.raises(DatasetError, match=says):
        read_image_list(path, NAMES)


def test_a_folder_is_read(tmp_path):
    for name in ("dog/2.png", "dog/1.JPG", "dog/notes.txt", "cat/deep/3.jpeg", "stray.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert read_image_folder(tmp_path) == [
        ("cat/deep/3.jpeg", "cat"),
        ("dog/1.JPG", "dog"),
        ("dog/2.png", "dog"),
    ]
    with pytest.raises(DatasetError, match="no folder in it has an image"):
        read_image_folder(tmp_path / "dog")


def images_of(*names: str) -> list[LabeledImage]:
    return [LabeledImage(f"{i}.png", name) for i, name in enumerate(names)]


@pytest.fixture
def paths(tmp_path):
    files = tmp_path / "train.txt", tmp_path / "test.txt"
    for file in files:
        file.touch()
    return files


def test_names_and_lines_of_the_lists(paths):
    train, test = images_of("ship", "cat"), images_of("cat", "dog")
    remaining = ("dog", "ship")
    assert join_image_parts((paths[0], train), (paths[1], test), remaining) == {
        "train_id.txt": ["0.png 1"],
        "test_id.txt": ["1.png 0"],
        "test_ood.txt": ["0.png -1"],
    }
    assert list(join_image_parts((paths[0], train), (paths[0], train), remaining)) == [
        "train_id.txt",
        "train_ood.txt",
    ]


@pytest.mark.parametrize(
    ("train", "test", "says"),
    [
        (("cat",), ("dog", "cat"), r"train\.txt: nothing is left to train on"),
        (("dog",), ("cat",), r"test\.txt: there is no ID image to evaluate on"),
        (("dog",), ("dog", "dog"), r"test\.txt: there is no OOD image .* none of its 2 images"),
    ],
)
def test_unusable_datasets(paths, train, test, says):
    with pytest.raises(DatasetError, match=says):
        join_image_parts((paths[0], images_of(*train)), (paths[1], images_of(*test)), ("dog",))


def test_what_systems_leave_in_folders_is_no_class(tmp_path):
    for name in ("cat/1.jpg", "cat/._1.jpg", "cat/.ipynb_checkpoints/1.jpg", ".git/x/1.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert read_image_folder(tmp_path) == [LabeledImage("cat/1.jpg", "cat")]

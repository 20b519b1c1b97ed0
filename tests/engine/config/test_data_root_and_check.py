import pytest
from mmengine.config import Config

from negvision.engine.config.data_files import check_data, replace_data_root
from negvision.errors import MissingDataError


def dataset(root="data/coco/", **kwargs):
    return dict(
        type="CocoDataset",
        data_root=root,
        ann_file="annotations/train.json",
        data_prefix={"img": "train/"},
        **kwargs,
    )


def wrapped(root="data/coco/"):
    return Config(
        {
            "data_root": root,
            "train_dataloader": {
                "dataset": {
                    "type": "RepeatDataset",
                    "times": 2,
                    "dataset": {
                        "type": "ConcatDataset",
                        "datasets": [dataset(root), dataset(root + "more/")],
                    },
                }
            },
            "val_dataloader": {"dataset": dataset(root)},
            "val_evaluator": [{"type": "CocoMetric", "ann_file": root + "annotations/train.json"}],
        }
    )


def test_every_root_moves():
    cfg = wrapped()
    replace_data_root(cfg, "/mnt/set")
    inner = cfg.train_dataloader.dataset.dataset.datasets
    assert [d.data_root for d in inner] == ["/mnt/set/", "/mnt/set/"]
    assert cfg.data_root == cfg.val_dataloader.dataset.data_root == "/mnt/set/"
    assert cfg.val_evaluator[0].ann_file == "/mnt/set/annotations/train.json"


def test_paths_outside_of_the_root_and_other_sections_stay():
    cfg = wrapped()
    cfg.load_from = "data/coco/weights.pth"
    cfg.val_evaluator[0].ann_file = "data/coco2/a.json"
    replace_data_root(cfg, "/mnt")
    assert cfg.load_from == "data/coco/weights.pth"
    assert cfg.val_evaluator[0].ann_file == "data/coco2/a.json"


def test_dataset_without_a_root_gets_one():
    bare = dataset()
    del bare["data_root"]
    cfg = Config({"val_dataloader": {"dataset": bare}})
    replace_data_root(cfg, "/mnt")
    assert cfg.val_dataloader.dataset.data_root == "/mnt/"


def missing(cfg, *splits):
    """The paths that are marked as missing, and the message."""
    with pytest.raises(MissingDataError) as caught:
        check_data(cfg, splits)
    message = str(caught.value)
    return [line.split()[0] for line in message.splitlines() if line.endswith("missing")], message


def test_missing_paths_are_listed(tmp_path):
    root = f"{tmp_path}/coco/"
    found, message = missing(wrapped(root), "train", "val")
    of_root = ["annotations/train.json", "train/"]
    assert found == sorted([*of_root, *(f"more/{path}" for path in of_root)])
    assert f"{root}annotations/train.json does not exist" in message
    assert "--data-root" in message and "make quickstart" in message
    check_data(wrapped(root), ("test",))  # which the config lacks


def test_only_missing_paths_are_marked(tmp_path):
    (tmp_path / "coco" / "annotations").mkdir(parents=True)
    (tmp_path / "coco" / "annotations" / "train.json").write_text("{}")
    cfg = Config({"val_dataloader": {"dataset": dataset(f"{tmp_path}/coco/")}})
    assert missing(cfg, "val")[0] == ["train/"]
    (tmp_path / "coco" / "train").mkdir()
    check_data(cfg, ("val",))


@pytest.mark.parametrize(
    "elsewhere",
    [
        {"root": "s3://bucket/coco/"},
        {"root": "coco/", "backend_args": {"backend": "petrel"}},
    ],
)
def test_remote_data_is_not_checked(elsewhere):
    check_data(Config({"val_dataloader": {"dataset": dataset(**elsewhere)}}), ("val",))


def test_generated_set_and_its_evaluator_may_be_absent(tmp_path):
    generated = dataset(f"{tmp_path}/digits/") | {"type": "negvision.DigitsDataset"}
    cfg = Config(
        {
            "val_dataloader": {"dataset": generated},
            "val_evaluator": {"ann_file": f"{tmp_path}/digits/annotations/val.json"},
        }
    )
    check_data(cfg, ("val",))


def face(kind, root, **kwargs):
    return {"val_dataloader": {"dataset": {"type": kind, "data_root": str(root), **kwargs}}}


@pytest.mark.parametrize(
    ("kind", "arguments", "files"),
    [
        ("FaceListDataset", {"landmarks_file": "points.txt"}, ["list.txt", "points.txt", "img"]),
        ("FaceRecordDataset", {"ann_file": "train.rec"}, ["train.rec", "train.idx", "img"]),
        (
            "FaceRecordDataset",
            {"ann_file": "train.rec", "idx_file": "my.idx"},
            ["train.rec", "my.idx", "img"],
        ),
    ],
)
def test_every_file_that_a_dataset_names_is_looked_for(tmp_path, kind, arguments, files):
    arguments = {"ann_file": "list.txt", "data_prefix": {"img": "img/"}, **arguments}
    cfg = Config(face(kind, tmp_path, **arguments))
    for present in range(len(files)):
        found = [path.rstrip("/") for path in missing(cfg, "val")[0]]
        assert sorted(found) == sorted(files[present:])
        if files[present] == "img":
            (tmp_path / "img").mkdir()
        else:
            (tmp_path / files[present]).touch()
    check_data(cfg, ("val",))


def test_dataset_that_is_only_a_folder(tmp_path):
    check_data(Config(face("FaceFolderDataset", tmp_path)), ("val",))
    with pytest.raises(MissingDataError, match=r"/none does not exist"):
        check_data(Config(face("FaceFolderDataset", tmp_path / "none")), ("val",))

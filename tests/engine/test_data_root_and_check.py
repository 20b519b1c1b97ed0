import pytest
from mmengine.config import Config

from negvision.engine.data_check import check_data
from negvision.engine.data_root import replace_data_root
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
    cfg = Config(
        {
            "load_from": "data/coco/weights.pth",
            "val_dataloader": {"dataset": dataset()},
            "val_evaluator": {"ann_file": "data/coco2/a.json"},
        }
    )
    replace_data_root(cfg, "/mnt")
    assert cfg.load_from == "data/coco/weights.pth"
    assert cfg.val_evaluator.ann_file == "data/coco2/a.json"


def test_dataset_without_a_root_gets_one():
    bare = dataset()
    del bare["data_root"]
    cfg = Config({"val_dataloader": {"dataset": bare}})
    replace_data_root(cfg, "/mnt")
    assert cfg.val_dataloader.dataset.data_root == "/mnt/"


def test_missing_data_is_shown_as_a_tree(tmp_path):
    root = f"{tmp_path}/coco/"
    with pytest.raises(MissingDataError) as caught:
        check_data(wrapped(root), ("train", "val"))
    message = str(caught.value)
    assert f"{root}annotations/train.json does not exist" in message
    lines = message.splitlines()
    tree = [line.rstrip() for line in lines if line.endswith("missing")]
    assert [line.split()[0] for line in tree] == ["train.json", "train.json", "train/", "train/"]
    assert "--data-root" in message and "make quickstart" in message


def test_only_what_is_absent_is_marked(tmp_path):
    (tmp_path / "coco" / "annotations").mkdir(parents=True)
    (tmp_path / "coco" / "annotations" / "train.json").write_text("{}")
    cfg = Config({"val_dataloader": {"dataset": dataset(f"{tmp_path}/coco/")}})
    with pytest.raises(MissingDataError) as caught:
        check_data(cfg, ("val",))
    marked = [line for line in str(caught.value).splitlines() if line.endswith("missing")]
    assert len(marked) == 1 and "train/" in marked[0]
    (tmp_path / "coco" / "train").mkdir()
    check_data(cfg, ("val",))


def test_only_the_splits_in_use_count(tmp_path):
    cfg = wrapped(f"{tmp_path}/none/")
    check_data(cfg, ("test",))
    with pytest.raises(MissingDataError):
        check_data(cfg, ("val",))


@pytest.mark.parametrize(
    "elsewhere",
    [
        {"root": "s3://bucket/coco/"},
        {"root": "coco/", "backend_args": {"backend": "petrel"}},
    ],
)
def test_remote_data_is_not_looked_for(elsewhere):
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

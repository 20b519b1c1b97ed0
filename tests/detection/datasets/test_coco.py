"""CocoDataset on good input: classes, crowds, ignore boxes, images without objects."""

import pytest

from negvision.detection.datasets import CocoDataset


def test_classes_come_from_the_file_in_order_of_ids(coco, log):
    coco.content["categories"].reverse()
    dataset = coco.dataset()
    assert dataset.metainfo["classes"] == ("cat", "dog")
    assert dataset.cat_ids == [3, 7]
    labels = [instance["bbox_label"] for instance in dataset.get_data_info(0)["instances"]]
    assert labels == [0, 1]
    assert "another order" in log[0]


def test_labels_follow_the_given_classes(coco):
    dataset = coco.dataset(metainfo={"classes": ("dog", "cat")})
    labels = [instance["bbox_label"] for instance in dataset.get_data_info(0)["instances"]]
    assert labels == [1, 0]


@pytest.mark.parametrize("mark", ["iscrowd", "ignore"])
def test_crowd_and_ignore_become_ignore_boxes(coco, mark):
    coco.first[mark] = 1
    instances = coco.dataset().get_data_info(0)["instances"]
    assert [instance["ignore_flag"] for instance in instances] == [1, 0]
    sample = coco.dataset()[0]["data_samples"]
    assert len(sample.ignored_instances) == len(sample.gt_instances) == 1


@pytest.mark.parametrize(("filter_empty", "expected"), [(True, 3), (False, 4)])
def test_images_without_objects_stay_unless_filtered(coco, filter_empty, expected):
    coco.content["annotations"] = coco.content["annotations"][:6]
    assert len(coco.dataset(filter_cfg={"filter_empty_gt": filter_empty})) == expected


def test_same_samples_as_mmdet_on_clean_data(digits):
    from mmdet.datasets import CocoDataset as MMDetCocoDataset

    arguments = {
        "data_root": str(digits),
        "ann_file": "annotations/instances_train.json",
        "data_prefix": {"img": "train/"},
    }
    ours = CocoDataset(**arguments)
    theirs = MMDetCocoDataset(metainfo={"classes": ours.metainfo["classes"]}, **arguments)
    assert len(ours) == len(theirs) == 24
    for i in range(len(ours)):
        a, b = ours.get_data_info(i), theirs.get_data_info(i)
        # mmdet drops annotations with `ignore`; here they are ignore boxes.
        ignored = sum(instance["ignore_flag"] for instance in b["instances"])
        assert sum(x["ignore_flag"] for x in a["instances"]) >= ignored
        assert [x for x in a["instances"] if not x["ignore_flag"]] == [
            x for x in b["instances"] if not x["ignore_flag"]
        ]
        assert {k: a[k] for k in ("img_path", "img_id")} == {
            k: b[k] for k in ("img_path", "img_id")
        }


def test_data_pack_loads_without_problems(shared_data):
    dataset = CocoDataset(
        data_root=str(shared_data / "bccd"),
        ann_file="annotations/train.json",
        data_prefix={"img": "images/"},
    )
    assert len(dataset) == 205
    assert dataset.metainfo["classes"] == ("RBC", "WBC", "Platelets")

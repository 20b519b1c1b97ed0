"""CocoDataset on good input: classes, crowds, ignore boxes, images without objects."""

import pytest

from negvision.detection.datasets import CocoDataset
from negvision.errors import DatasetError


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
    dataset = coco.dataset(filter_cfg={"filter_empty_gt": filter_empty})
    assert (len(dataset), dataset.backgrounds) == (expected, expected - 3)


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
        assert all(x.pop("annotation_id") for x in a["instances"])
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


def roboflow(coco, parent):
    """Categories as Roboflow writes them, with a parent without objects in front."""
    coco.content["categories"] = [
        {"id": 0, "name": parent, "supercategory": "none"},
        {"id": 3, "name": "cat", "supercategory": parent},
        {"id": 7, "name": "dog", "supercategory": parent},
    ]


def test_a_parent_category_is_noted_with_the_remedy(coco, log):
    roboflow(coco, "animals")
    dataset = coco.dataset()
    assert dataset.metainfo["classes"] == ("animals", "cat", "dog")
    assert "metainfo=dict(classes=('cat', 'dog'))" in dataset.parents_left_out()
    assert any("class that is only the parent of others" in line for line in log)
    chosen = coco.dataset(metainfo={"classes": ("cat", "dog")})
    assert chosen.parents_left_out() == ""
    labels = [instance["bbox_label"] for instance in chosen.get_data_info(0)["instances"]]
    assert labels == [0, 1]


@pytest.mark.parametrize("classes", [None, ("cat", "dog")])
def test_a_parent_with_the_name_of_a_class_is_passed_over(coco, log, classes):
    roboflow(coco, "cat")
    dataset = coco.dataset(metainfo={"classes": classes} if classes else None)
    assert dataset.metainfo["classes"] == ("cat", "dog") and dataset.cat_ids == [3, 7]
    assert dataset.parents_left_out() == ""


@pytest.mark.parametrize("own", [{}, {"supercategory": None}, {"supercategory": "things"}])
def test_parents_of_several_levels_and_without_a_parent_of_their_own(coco, own):
    roboflow(coco, "animals")
    coco.content["categories"][0] = {"id": 0, "name": "animals", **own}
    coco.content["categories"].append({"id": 9, "name": "things"})
    remedy = coco.dataset().parents_left_out()
    assert ("'animals', 'things' has" if own.get("supercategory") else "'animals' has") in remedy


def test_a_parent_with_objects_is_a_class(coco):
    roboflow(coco, "animals")
    coco.first["category_id"] = 0
    assert coco.dataset().parents_left_out() == ""


@pytest.mark.parametrize(
    ("written", "on_disk"),
    [
        ("sub\\a b.jpg", "sub/a b.jpg"),
        ("sub/a%20b.jpg", "sub/a b.jpg"),
        ("sub%2Fa%20b.jpg", "sub/a b.jpg"),
        ("sub/cafe\u0301.jpg", "sub/caf\u00e9.jpg"),
        ("sub/caf\u00e9.jpg", "sub/cafe\u0301.jpg"),
        ("sub\\caf%C3%A9.jpg", "sub/cafe\u0301.jpg"),
        ("sub/50%.jpg", "sub/50%.jpg"),
        ("sub/a%20b.jpg", "sub/a%20b.jpg"),
    ],
)
def test_names_that_the_disk_spells_otherwise(coco, log, written, on_disk):
    (coco.images / "sub").mkdir()
    (coco.images / "a.jpg").rename(coco.images / on_disk)
    coco.content["images"][0]["file_name"] = written
    dataset = coco.dataset()
    assert dataset.get_data_info(0)["img_path"] == str(coco.images / on_disk)
    assert dataset[0]["data_samples"].img_id == 1
    noted = [line for line in log if "1 x file name with other slashes" in line]
    assert len(noted) == (written != on_disk)


def test_another_spelling_does_not_leave_the_data_root(coco, tmp_path):
    (tmp_path / "secret.jpg").write_bytes(b"")
    coco.content["images"][0]["file_name"] = "%2e%2e/%2e%2e/secret.jpg"
    with pytest.raises(DatasetError, match="1 x missing image file"):
        coco.dataset()


def test_classes_compare_in_composed_form(coco):
    coco.content["categories"][0]["name"] = "chie\u0302n"
    assert coco.dataset().metainfo["classes"] == ("chi\u00ean", "dog")
    dataset = coco.dataset(metainfo={"classes": ("dog", "chi\u00ean")})
    assert dataset.cat_ids == [7, 3]


WITH_MASKS = [
    {"type": "negvision.LoadImageFromFile"},
    {"type": "mmdet.LoadAnnotations", "with_bbox": True, "with_mask": True},
    {"type": "mmdet.PackDetInputs", "meta_keys": ("img_id", "img_path")},
]
SQUARE = [5, 10, 25, 10, 25, 40, 5, 40]


@pytest.mark.parametrize(
    ("mask", "kind"),
    [
        ("none at all", "missing mask (segmentation)"),
        (None, "missing mask (segmentation)"),
        ([], "missing mask (segmentation)"),
        ({}, "missing mask (segmentation)"),
        ([[]], "mask without a polygon of three points"),
        ([[1, 1, 5, 5]], "mask without a polygon of three points"),
        ([[1, 1, 5, 5, 9, 9, 3]], "mask without a polygon of three points"),
        ([[float("nan"), 1, 5, 5, 9, 9]], "mask with NaN or infinite coordinates"),
        ([["1", 1, 5, 5, 9, 9]], "mask that is neither polygons nor run lengths"),
        (SQUARE, "mask that is neither polygons nor run lengths"),
        ("PYQ1", "mask that is neither polygons nor run lengths"),
        ({"size": [80, 100]}, "mask that is neither polygons nor run lengths"),
        ({"size": [100, 80], "counts": [8000]}, "mask of another size than its image"),
        ({"size": [80, 100], "counts": [7]}, "mask whose run lengths do not fill its image"),
    ],
)
def test_unusable_masks_are_problems_where_masks_are_loaded(coco, mask, kind):
    for annotation in coco.content["annotations"]:
        annotation["segmentation"] = [SQUARE]
    coco.first["segmentation"] = mask
    if mask == "none at all":
        del coco.first["segmentation"]
    assert len(coco.dataset()) == 4
    with pytest.raises(DatasetError) as caught:
        coco.dataset(pipeline=WITH_MASKS)
    assert f"1 x {kind}" in str(caught.value)
    assert "annotation id 10 of image 'a.jpg' (id 1)" in str(caught.value)
    dataset = coco.dataset(pipeline=WITH_MASKS, on_bad_sample="skip")
    assert [len(dataset[i]["data_samples"].gt_instances) for i in range(4)] == [1, 2, 2, 2]


def test_masks_that_can_be_used(coco):
    usable = ([SQUARE], [SQUARE, [1, 1, 5, 5]], {"size": [80, 100], "counts": [90, 10, 7900]})
    for number, annotation in enumerate(coco.content["annotations"]):
        annotation["segmentation"] = usable[number % 3]
    dataset = coco.dataset(pipeline=WITH_MASKS)
    assert sum(len(dataset[i]["data_samples"].gt_instances) for i in range(4)) == 8


def test_a_file_without_annotations_is_for_tests(coco):
    del coco.content["annotations"]
    with pytest.raises(DatasetError, match="has a list 'annotations'; found nothing"):
        coco.dataset()
    dataset = coco.dataset(test_mode=True)
    assert len(dataset) == 4 and dataset.get_data_info(0)["instances"] == []

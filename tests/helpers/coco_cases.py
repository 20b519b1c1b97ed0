"""Random COCO ground truth and detections: crowds, ties, empty images, shuffled ids."""

from __future__ import annotations

import numpy as np

SIZE = 250


def random_case(
    seed: int,
    categories: tuple[int, ...] = (3, 90, 1, 12),
    images: int = 8,
    crowd: float = 0.2,
    most_detections: int = 30,
    integer: bool = False,
    tied_scores: bool = False,
) -> tuple[dict, list[dict]]:
    """Ground truth and detections in COCO's format; a third of the detections are noise."""
    rng = np.random.default_rng(seed)
    annotations: list[dict] = []
    detections: list[dict] = []
    image_ids = [int(number) for number in rng.permutation(1000)[:images]]
    for image_id in image_ids:
        here = []
        for box in _boxes(rng, int(rng.integers(0, 12)), integer):
            here.append(
                {
                    "id": len(annotations) + len(here) + 1,
                    "image_id": image_id,
                    "category_id": int(rng.choice(categories)),
                    "bbox": box.tolist(),
                    "area": float(box[2] * box[3] * rng.choice([1.0, 0.6])),
                    "iscrowd": int(rng.random() < crowd),
                }
            )
        annotations += here
        for _ in range(int(rng.integers(0, most_detections))):
            category = int(rng.choice(categories))
            if here and rng.random() < 0.67:
                near = here[int(rng.integers(len(here)))]
                shift = rng.integers(-6, 7, 4) if integer else rng.normal(0, 6, 4)
                box = np.asarray(near["bbox"]) + shift
                box[2:] = np.maximum(box[2:], 1)
                category = near["category_id"] if rng.random() < 0.85 else category
            else:
                box = _boxes(rng, 1, integer)[0]
            score = float(round(rng.random(), 1) if tied_scores else rng.random())
            detections.append(
                {
                    "image_id": image_id,
                    "category_id": category,
                    "bbox": box.tolist(),
                    "score": score,
                }
            )
    rng.shuffle(detections)
    ground_truth = {
        "images": [
            {"id": number, "file_name": f"{number}.jpg", "width": SIZE, "height": SIZE}
            for number in image_ids
        ],
        "annotations": annotations,
        "categories": [{"id": number, "name": f"class {number}"} for number in categories],
    }
    return ground_truth, detections


def _boxes(rng: np.random.Generator, count: int, integer: bool) -> np.ndarray:
    corners = rng.uniform(0, SIZE * 0.7, (count, 2))
    sizes = np.exp(rng.uniform(1.5, 5.3, (count, 2)))
    if integer:
        corners, sizes = np.round(corners), np.round(sizes)
    return np.concatenate([corners, np.minimum(sizes, SIZE - corners)], axis=1)

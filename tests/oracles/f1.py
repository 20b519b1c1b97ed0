"""F1 of detections at every threshold, by loops."""


def overlap(a, b, over_first=False):
    """IoU of two boxes (x, y, width, height), or intersection over the first."""
    width = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    height = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    both = max(width, 0) * max(height, 0)
    return both / (a[2] * a[3] if over_first else a[2] * a[3] + b[2] * b[3] - both)


def counts(ground_truth, detections, category, threshold):
    """TP, FP and number of objects of a class at a threshold."""
    hits = misses = objects = 0
    for image in ground_truth["images"]:
        here = [
            a
            for a in ground_truth["annotations"]
            if a["image_id"] == image["id"] and a["category_id"] == category
        ]
        crowds = [a for a in here if a["iscrowd"]]
        free = [a for a in here if not a["iscrowd"]]
        objects += len(free)
        found = [
            d
            for d in detections
            if d["image_id"] == image["id"]
            and d["category_id"] == category
            and d["score"] >= threshold
        ]
        for detection in sorted(found, key=lambda d: -d["score"]):
            best = max(free, key=lambda a: overlap(detection["bbox"], a["bbox"]), default=None)
            if best is not None and overlap(detection["bbox"], best["bbox"]) >= 0.5:
                free.remove(best)
                hits += 1
            elif all(overlap(detection["bbox"], a["bbox"], True) < 0.5 for a in crowds):
                misses += 1
    return hits, misses, objects


def slow_threshold(ground_truth, detections, category):
    best, at = 0.0, None
    scores = {d["score"] for d in detections if d["category_id"] == category}
    for threshold in sorted(scores, reverse=True):
        hits, misses, objects = counts(ground_truth, detections, category, threshold)
        f1 = 2 * hits / (hits + misses + objects) if objects else 0
        if f1 > best:
            best, at = f1, threshold
    return at

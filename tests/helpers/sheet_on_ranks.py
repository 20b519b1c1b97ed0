"""A sheet of predictions that two ranks made."""

from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import torch
import torch.distributed as dist
from mmengine.structures import InstanceData

from negvision.detection.prediction_hooks import PredictionSheetHook


class _Data(list):
    metainfo = {"classes": ("a",)}
    get_data_info = list.__getitem__


def draw_sheet(folder: Path) -> None:
    """Draw five images; the sampler repeats the first one to fill the last batch."""
    rank, shown = dist.get_rank(), []
    infos = [{"img_id": 7 * i, "img_path": f"{folder}/{i}.png", "instances": []} for i in range(5)]
    for i, info in enumerate(infos if rank == 0 else ()):
        cv2.imwrite(info["img_path"], np.full((60, 60, 3), 40 * i, np.uint8))
    runner = SimpleNamespace(
        work_dir=folder,
        score_threshold=None,
        _train_loop=None,
        logger=SimpleNamespace(info=shown.append),
        val_dataloader=SimpleNamespace(dataset=_Data(infos)),
    )
    hook = PredictionSheetHook(num_images=5, columns=5, tile_size=60)
    hook.before_val_epoch(runner)
    empty = torch.zeros(0)
    found = InstanceData(bboxes=torch.zeros(0, 4), labels=empty.long(), scores=empty)
    for i in ([0, 2, 4], [1, 3, 0])[rank]:
        sample = SimpleNamespace(img_path=f"{folder}/{i}.png", pred_instances=found)
        hook.after_val_iter(runner, 0, None, [sample])
    hook.after_val_epoch(runner)
    assert len(shown) == (rank == 0), shown

"""Images that lie in one ``.npz``."""

from mmengine.dataset import force_full_init

from negvision.classification.datasets.base import ImageDataset
from negvision.data.images.packs import read_pack
from negvision.errors import DatasetError, Problems
from negvision.registry import DATASETS


@DATASETS.register_module()
class PackedImageDataset(ImageDataset):
    """Images of a pack: ``data``, ``offsets``, ``labels``, ``classes`` in one ``.npz``.

    :class:`negvision.data.images.packs.ImagePack` says what they hold. The encoded images stay in
    memory, shared by all workers, and each is decoded by ``negvision.LoadImageFromFile`` when it
    is asked for. :func:`negvision.data.images.packs.read_image` reads ``img_path``, which is
    ``file:index``.

    Args:
        ann_file: The ``.npz`` file.
        metainfo: By default the pack's own classes.
        **kwargs: Of :class:`negvision.classification.datasets.base.ImageDataset`.

    Raises:
        DatasetError: The pack is damaged, its classes are not those of ``metainfo``, or a label
            is out of range and ``on_bad_sample`` is "error".

    Example::

        dataset=dict(type="negvision.PackedImageDataset", data_root="data/cifar/",
                     ann_file="cifar100_test.npz", is_ood=True, source="cifar100",
                     test_mode=True, pipeline=[...])
    """

    def load_data_list(self) -> list[dict]:
        """Read and check the pack; see the base class."""
        self._require_file()
        self._pack = read_pack(self.ann_file)
        classes = self._metainfo.setdefault("classes", self._pack.classes)
        if not self.is_ood and tuple(classes) != self._pack.classes:
            raise DatasetError(
                f"{self.ann_file}: its classes are {self._pack.classes}, and metainfo says "
                f"{tuple(classes)}: labels would name other classes. Leave metainfo out."
            )
        problems, samples = Problems(), []
        for index, label in enumerate(self._pack.labels.tolist()):
            path = f"{self.ann_file}:{index}"
            fault = self._label_fault(label)
            if fault:
                problems.add(fault, path, label)
            else:
                samples.append({**self._sample(path, label), "pack_index": index})
        return self._finish(samples, problems, self.ann_file, len(self._pack))

    @force_full_init
    def get_data_info(self, idx: int) -> dict:
        """One image with its bytes, ``img_bytes``."""
        info = super().get_data_info(idx)
        return {**info, "img_bytes": self._pack.encoded(info.pop("pack_index"))}

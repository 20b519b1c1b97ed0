import pytest

from negvision.face.datasets.packed import PackedBytes, PackedStrings


@pytest.mark.parametrize("items", [[], [b""], [b"a", b"", b"bc", b"\0\xff" * 9]])
def test_items_come_back(items):
    packed = PackedBytes(iter(items))
    assert list(packed) == items
    assert [packed[i - len(items)] for i in range(len(items))] == items
    for index in (len(items), -len(items) - 1):
        with pytest.raises(IndexError):
            packed[index]


def test_any_file_name_comes_back():
    names = ["Jos\u00e9/1.jpg", b"\xff\xfe.jpg".decode("utf-8", "surrogateescape"), ""]
    assert list(PackedStrings(names)) == names

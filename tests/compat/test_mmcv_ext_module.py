"""Where the substitute stands in for mmcv._ext, and what it says about operators it has not."""

import os
import subprocess
import sys
import textwrap

import pytest

from negvision.compat import mmcv_ext


def run_python(code, path=None):
    environment = dict(os.environ, OMP_NUM_THREADS="1")
    if path is not None:
        paths = [str(path), environment.get("PYTHONPATH", "")]
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )


def fake_mmcv(folder, extension=None):
    package = folder / "mmcv"
    package.mkdir()
    (package / "__init__.py").write_text("")
    if extension is not None:
        (package / "_ext.py").write_text(extension)


def test_a_compiled_extension_wins(tmp_path):
    fake_mmcv(tmp_path, extension="COMPILED = True\n")
    result = run_python("import negvision, mmcv._ext; print(mmcv._ext.COMPILED)", tmp_path)
    assert result.stdout.split() == ["True"], result.stderr


def test_a_broken_compiled_extension_is_not_replaced_in_silence(tmp_path):
    fake_mmcv(tmp_path, extension="raise ImportError('undefined symbol: _ZN3c10')\n")
    result = run_python("import negvision, mmcv._ext", tmp_path)
    assert result.returncode != 0
    assert "undefined symbol: _ZN3c10" in result.stderr


def test_the_substitute_serves_a_mmcv_without_extension(tmp_path):
    fake_mmcv(tmp_path)
    result = run_python(
        """
        import sys
        import negvision
        assert "torch" not in sys.modules and "mmcv" not in sys.modules
        import mmcv._ext
        import negvision.compat.mmcv_ext as substitute
        assert mmcv._ext.nms is substitute.nms
        assert mmcv._ext.__spec__.name == mmcv._ext.__name__ == "mmcv._ext"
        assert substitute.__spec__.name == "negvision.compat.mmcv_ext"
        print(mmcv._ext.__file__ == substitute.__file__)
        """,
        tmp_path,
    )
    assert result.stdout.split() == ["True"], result.stderr


def test_the_hook_is_installed_once():
    from negvision.compat import provide_mmcv_ext
    from negvision.compat.finder import MMCVExtFinder

    provide_mmcv_ext()
    assert sum(isinstance(finder, MMCVExtFinder) for finder in sys.meta_path) == 1


def test_mmcv_sees_its_operators(substituted_mmcv):
    from mmcv.utils import ext_loader

    extension = ext_loader.load_ext("_ext", ["nms", "carafe_forward"])
    assert extension.nms is mmcv_ext.nms
    assert "negvision" in substituted_mmcv.get_compiler_version()
    assert "negvision" in substituted_mmcv.get_compiling_cuda_version()


def test_an_unknown_operator_names_itself_and_the_remedy(substituted_mmcv):
    import torch

    boxes = torch.rand(2, 5)
    with pytest.raises(NotImplementedError) as error:
        substituted_mmcv.nms_rotated(boxes, torch.rand(2), 0.5)
    assert "'nms_rotated'" in str(error.value)
    assert "MMCV_WITH_OPS=1 pip install --no-build-isolation" in str(error.value)
    assert mmcv_ext.nms_rotated.__name__ == "nms_rotated"


def test_special_names_are_not_operators():
    # inspect and importlib ask modules for names such as these, and break on a function.
    for name in ("__path_of_nothing__", "_repr_html_", "__wrapped__"):
        assert not hasattr(mmcv_ext, name)

"""Where the substitute stands in for mmcv._ext, and the error of operators that it lacks."""

import os
import subprocess
import sys
import textwrap

import pytest

from negvision.compat import mmcv_ext


def run_python(code, folder, extension=None):
    """Run code beside an mmcv that holds nothing but, if given, its extension."""
    (folder / "mmcv").mkdir()
    (folder / "mmcv" / "__init__.py").write_text("")
    if extension is not None:
        (folder / "mmcv" / "_ext.py").write_text(extension)
    paths = os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": paths}
    command = [sys.executable, "-c", textwrap.dedent(code)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)


def test_a_compiled_extension_wins_even_if_it_is_broken(tmp_path):
    code = """
        import negvision, mmcv._ext
        print(mmcv._ext.COMPILED)
    """
    done = run_python(code, tmp_path, "COMPILED = True\n")
    assert done.stdout.split() == ["True"], done.stderr
    (tmp_path / "broken").mkdir()
    done = run_python(code, tmp_path / "broken", "raise ImportError('undefined symbol: _ZN3c10')\n")
    assert done.returncode != 0 and "undefined symbol: _ZN3c10" in done.stderr


def test_the_substitute_serves_an_mmcv_without_extension(tmp_path):
    code = """
        import sys
        import negvision
        assert "torch" not in sys.modules and "mmcv" not in sys.modules
        import mmcv._ext
        import negvision.compat.mmcv_ext as substitute
        assert mmcv._ext.nms is substitute.nms
        assert mmcv._ext.__spec__.name == mmcv._ext.__name__ == "mmcv._ext"
        assert substitute.__spec__.name == "negvision.compat.mmcv_ext"
        print(mmcv._ext.__file__ == substitute.__file__)
    """
    done = run_python(code, tmp_path)
    assert done.stdout.split() == ["True"], done.stderr


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

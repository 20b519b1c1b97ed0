"""Compile the CUDA kernels for the host, as operators ``negvision_stand_in``."""

import re
import subprocess
from pathlib import Path

import torch

HERE = Path(__file__).parent
CSRC = HERE.parents[2] / "negvision" / "ops" / "csrc"
NAMESPACE = "negvision_stand_in"
_LAUNCH = re.compile(r"(\w+)<<<(.*?)>>>\((.*?)\);", re.DOTALL)


def translate(source: str) -> str:
    """CUDA's launch syntax as a call, and what a host has not left out."""

    def launch(match: re.Match) -> str:
        kernel, shape, arguments = match.groups()
        grid, block = _split(shape)[:2]
        return f"stand_in::launch(dim3({grid}), dim3({block}), [&] {{ {kernel}({arguments}); }});"

    source = _LAUNCH.sub(launch, source)
    source = re.sub(r"torch::stable::accelerator::DeviceGuard guard\(.*?\);\n", "", source)
    source = source.replace(
        "extern __shared__ char storage[];", "char* storage = stand_in::shared_memory;"
    )
    source = source.replace("negvision, CUDA, m", f"{NAMESPACE}, CPU, m")
    return source.replace('#include "../', '#include "')


def _split(text: str) -> list[str]:
    """Arguments at the commas outside of parentheses."""
    parts, depth = [""], 0
    for character in text:
        depth += (character == "(") - (character == ")")
        if character == "," and not depth:
            parts.append("")
        else:
            parts[-1] += character
    return parts


def build(folder: Path, compiler: str) -> Path:
    """Write the translated sources to ``folder`` and compile them; returns the library."""
    sources = [CSRC / "schema.cpp", *sorted((CSRC / "cuda").glob("*.cu"))]
    written = []
    for source in sources:
        text = source.read_text().replace(
            "STABLE_TORCH_LIBRARY(negvision,", f"STABLE_TORCH_LIBRARY({NAMESPACE},"
        )
        written.append(folder / f"{source.stem}.cpp")
        written[-1].write_text(translate(text))
    root = Path(torch.__file__).parent
    library = folder / "stand_in.so"
    command = [
        compiler, "-std=c++17", "-O1", "-ffp-contract=off", "-fPIC", "-shared",
        "-DTORCH_TARGET_VERSION=0x020a000000000000",
        f"-I{HERE}", f"-I{CSRC}", f"-I{root}/include", f"-I{root}/include/torch/csrc/api/include",
        *map(str, written), "-o", str(library), f"-L{root}/lib", "-ltorch_cpu", "-lc10",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return library

# negvision with its pinned dependencies. From the root of a clone:
#
#     docker build -t negvision .
#     mkdir -p work_dirs
#     docker run --rm --ipc=host --user "$(id -u):$(id -g)" \
#         -v "$PWD/work_dirs:/negvision/work_dirs" negvision \
#         python tools/train.py configs/quickstart/atss_digits.py
#
# With GPUs and the compiled CUDA kernels (torch ships the libraries but no compiler):
#
#     docker build -t negvision:cuda --build-arg BASE=nvidia/cuda:13.0.2-devel-ubuntu24.04 \
#         --build-arg NEGVISION_CUDA=1 .
#     docker run --rm --gpus all --ipc=host -v /mnt/coco:/negvision/data/coco negvision:cuda \
#         tools/dist_train.sh configs/atss_r50.py 8
ARG BASE=python:3.11-slim-bookworm
FROM ${BASE}

# libgl1 and libglib2.0-0 are for the opencv package that mmdetection requires. g++ stays:
# torch.compile needs it at run time.
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
        g++ git make libgl1 libglib2.0-0 \
    && if ! command -v python3; then \
        DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
            python3 python3-dev python3-venv; \
    fi \
    && rm -rf /var/lib/apt/lists/*

# A venv, since Debian's own Python accepts no packages.
RUN python3 -m venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH \
    PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1

WORKDIR /negvision
# The dependencies (6 GB) come first, so that a change of the sources reuses their layers.
COPY requirements requirements
RUN pip install -r requirements/runtime.txt setuptools wheel ninja -c requirements/constraints.txt

COPY . .
# 0: without CUDA kernels. 1: with them, or the build fails with the reason.
ARG NEGVISION_CUDA=0
# The target GPUs: there is none while an image is built.
ARG TORCH_CUDA_ARCH_LIST="8.0;9.0+PTX"
RUN NEGVISION_CUDA=${NEGVISION_CUDA} FORCE_CUDA=${NEGVISION_CUDA} \
    TORCH_CUDA_ARCH_LIST="${TORCH_CUDA_ARCH_LIST}" \
    pip install --no-build-isolation --no-deps -e . \
    && python -c "from negvision.ops import extension_info as i; assert i()['loaded'], i()"

# A run needs no root: `--user` sets the owner of written files. That user has no home in the image,
# but matplotlib and torch.compile want one.
RUN mkdir -p data work_dirs && chmod 1777 data work_dirs
ENV HOME=/tmp USER=user

CMD ["negvision", "--help"]

# ntil on a machine with NVIDIA GPUs and the container toolkit; the driver is the host's, CUDA's libraries come with torch.
#   docker build -t ntil .
#   docker run --gpus all --ipc=host -v "$PWD:/work" -v ntil-cache:/cache ntil train model=qwen2_vl_2b task=refcoco
# --ipc=host: data workers and NCCL share memory. /work has runs and data, /cache what is downloaded and prepared.
FROM python:3.11-slim-bookworm

ENV PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PYTHONUNBUFFERED=1 \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    NTIL_CACHE=/cache/ntil \
    HF_HOME=/cache/huggingface

# A compiler: Triton builds its launchers at first use. git: a run records the commit of the folder it starts in.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ git \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 1000 ntil \
    && install --directory --owner=ntil /cache /work

# Torch first and pinned, as in the Makefile: its layer is the largest and changes least.
RUN pip install torch==2.13.0

WORKDIR /opt/ntil
COPY . .
RUN pip install --constraint requirements-dev.txt --editable '.[train]'

USER 1000
WORKDIR /work
ENTRYPOINT ["ntil"]
CMD ["--help"]

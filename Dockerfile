# A node of a cluster: the same image for head and workers, CPU or GPU.
#   docker build -t spikeseg --build-arg TORCH_INDEX=<index of torch CPU builds> .
#   docker build -t spikeseg --build-arg TORCH_INDEX= --build-arg EXTRA=gpu .   # CUDA 13
# To build from the same base again: --build-arg PYTHON_DIGEST=sha256:<digest of that day>
ARG PYTHON_IMAGE=python:3.11-slim
ARG PYTHON_DIGEST=
FROM ${PYTHON_IMAGE}${PYTHON_DIGEST:+@${PYTHON_DIGEST}}
# wget: KubeRay asks with it whether head and workers live.
RUN apt-get update && apt-get install --yes --no-install-recommends git make wget \
    && rm -rf /var/lib/apt/lists/*
ARG TORCH_INDEX=
ARG EXTRA=
WORKDIR /opt/spikeseg
# Before the code, so that an edit of it builds no environment anew.
COPY constraints.txt ./
RUN pip install --no-cache-dir ${TORCH_INDEX:+--index-url $TORCH_INDEX} -c constraints.txt torch
COPY . .
RUN pip install --no-cache-dir -c constraints.txt ".${EXTRA:+[$EXTRA]}"
# Storage that is mounted belongs to this user or must let it write: docker run --user, or fsGroup.
RUN useradd --create-home --uid 1000 --shell /bin/bash spikeseg \
    && mkdir /work && chown spikeseg:spikeseg /work
USER spikeseg
ENV RAY_AUTH_MODE=token MLFLOW_DISABLE_TELEMETRY=true OMP_NUM_THREADS=1
WORKDIR /work
ENTRYPOINT ["spikeseg"]

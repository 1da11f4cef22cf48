# A node of a cluster: the same image for head and workers, CPU or GPU.
#   docker build -t spikeseg --build-arg TORCH_INDEX=<index of torch CPU builds> .
#   docker build -t spikeseg --build-arg TORCH_INDEX= --build-arg EXTRA=gpu .   # CUDA 13
FROM python:3.11-slim
RUN apt-get update && apt-get install --yes --no-install-recommends git make \
    && rm -rf /var/lib/apt/lists/*
ARG TORCH_INDEX=
ARG EXTRA=
WORKDIR /opt/spikeseg
COPY . .
RUN pip install --no-cache-dir ${TORCH_INDEX:+--index-url $TORCH_INDEX} "torch>=2.11,<2.14" \
    && pip install --no-cache-dir ".${EXTRA:+[$EXTRA]}"
ENV RAY_AUTH_MODE=token MLFLOW_DISABLE_TELEMETRY=true OMP_NUM_THREADS=1
WORKDIR /work
ENTRYPOINT ["spikeseg"]

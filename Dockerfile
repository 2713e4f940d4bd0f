# docker build -t scalable_agent .         sets up, builds the ops, runs tests
# docker run --rm scalable_agent           trains on Catch for a minute, tests
# docker run --rm --init -v "$PWD/logs:/scalable_agent/logs" scalable_agent \
#   python experiment.py --level_name=pong
#
# With simulators that are extras of pyproject.toml:
#
# docker build -t scalable_agent --build-arg EXTRAS=minigrid,vizdoom .
#
# With a wheel of DeepMind Lab, built for the image's Python (docs/dmlab.md), in
# this folder:
#
# docker build -t scalable_agent --build-arg PYTHON_IMAGE=python:3.13-slim-bookworm \
#   --build-arg DMLAB_WHEEL=deepmind_lab-1.0-py3-none-any.whl .
#
# `docker stop` ends either as Ctrl-C does, with a checkpoint. With --init a test
# hears it, too.

ARG PYTHON_IMAGE=python:3.12-slim-bookworm
ARG DMLAB_WHEEL=

FROM ${PYTHON_IMAGE} AS base
ARG DMLAB_WHEEL
# What the engine draws with where there is no GPU.
RUN if [ -n "${DMLAB_WHEEL}" ]; then \
    apt-get update \
    && apt-get install --no-install-recommends --yes libosmesa6 \
    && rm -rf /var/lib/apt/lists/*; \
  fi

FROM base AS build
ARG EXTRAS=
ARG DMLAB_WHEEL
RUN apt-get update \
  && apt-get install --no-install-recommends --yes g++ make \
  && rm -rf /var/lib/apt/lists/*
ENV PIP_NO_CACHE_DIR=1
WORKDIR /scalable_agent
# The environment is a layer of its own: edits of the code leave it as it is.
COPY Makefile requirements*.txt ./
RUN make packages EXTRAS="${EXTRAS}"
# Nothing but the Makefile once more if there is no wheel.
COPY Makefile ${DMLAB_WHEEL} ./
RUN if [ -n "${DMLAB_WHEEL}" ]; then \
    .venv/bin/python -m pip install dm-env "./$(basename "${DMLAB_WHEEL}")"; \
  fi
COPY . .
RUN make setup

FROM build AS test
RUN make test && touch tests/passed

FROM base
WORKDIR /scalable_agent
COPY --from=build /scalable_agent ./
# Nothing needs this file but the order of the stages: no tests, no image.
COPY --from=test /scalable_agent/tests/passed /tmp/
ENV PATH="/scalable_agent/.venv/bin:${PATH}"
CMD ["scripts/demo.sh"]

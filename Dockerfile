# docker build -t scalable_agent .         sets up, builds the ops, runs tests
# docker run --rm scalable_agent           trains on Catch for a minute, tests
# docker run --rm --init -v "$PWD/logs:/scalable_agent/logs" scalable_agent \
#   python experiment.py --level_name=pong
#
# `docker stop` ends either as Ctrl-C does, with a checkpoint. With --init a test
# hears it, too.

ARG PYTHON_IMAGE=python:3.12-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
RUN apt-get update \
  && apt-get install --no-install-recommends --yes g++ make \
  && rm -rf /var/lib/apt/lists/*
ENV PIP_NO_CACHE_DIR=1
WORKDIR /scalable_agent
# The environment is a layer of its own: edits of the code leave it as it is.
COPY Makefile requirements.txt ./
RUN make .venv/.requirements
COPY . .
RUN make setup

FROM build AS test
RUN make test && touch tests/passed

FROM ${PYTHON_IMAGE}
WORKDIR /scalable_agent
COPY --from=build /scalable_agent ./
# Nothing needs this file but the order of the stages: no tests, no image.
COPY --from=test /scalable_agent/tests/passed /tmp/
ENV PATH="/scalable_agent/.venv/bin:${PATH}"
CMD ["scripts/demo.sh"]

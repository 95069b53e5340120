# One image for every part of GoQueue: `goqueue api`, `goqueue worker`, `goqueue scheduler`, `goqueue operator`,
# `goqueue migrate`. Runs as user 10001 and needs no writable file system.
#
#   docker build --tag goqueue:0.1.0 .
#
# The base is pinned by tag. For a build that must stay the same for ever, pin it by digest as well:
#   docker build --build-arg PYTHON=docker.io/library/python:3.13-slim-bookworm@sha256:… .
ARG PYTHON=docker.io/library/python:3.13-slim-bookworm

FROM ${PYTHON} AS build
WORKDIR /build
# What is fetched is fetched by the locks, each file checked against its hash; nothing is compiled.
COPY requirements/bootstrap.lock requirements/
RUN pip install --no-cache-dir --require-hashes --requirement requirements/bootstrap.lock
# Dependencies change rarely and weigh the most: a layer of their own.
COPY requirements/runtime.lock requirements/
RUN uv pip install --no-cache --no-deps --only-binary :all: --require-hashes --compile-bytecode \
    --target /opt/goqueue/dependencies --requirements requirements/runtime.lock
COPY requirements/dev.lock requirements/
COPY pyproject.toml README.md LICENSE ./
COPY goqueue goqueue
COPY api api
COPY worker worker
COPY scheduler scheduler
COPY operator operator
COPY migrations migrations
COPY cli cli
# The build backend, too, comes from a lock (dev.lock has it; the rest of that lock is not installed).
RUN uv build --no-cache --wheel --build-constraints requirements/dev.lock --require-hashes --out-dir dist . \
    && uv pip install --no-cache --no-deps --compile-bytecode --target /opt/goqueue/app dist/*.whl

FROM ${PYTHON}
LABEL org.opencontainers.image.title="GoQueue" \
    org.opencontainers.image.description="Background jobs for teams on Kubernetes" \
    org.opencontainers.image.licenses="MIT"
RUN echo 'goqueue:x:10001:' >> /etc/group \
    && echo 'goqueue:x:10001:10001:GoQueue:/nonexistent:/usr/sbin/nologin' >> /etc/passwd
COPY --from=build /opt/goqueue/dependencies /opt/goqueue/dependencies
COPY --from=build /opt/goqueue/app /opt/goqueue/app
ENV PATH=/opt/goqueue/app/bin:$PATH \
    PYTHONPATH=/opt/goqueue/app:/opt/goqueue/dependencies \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
# By number: Kubernetes cannot check `runAsNonRoot` against a name.
USER 10001:10001
WORKDIR /opt/goqueue
# API; health and metrics of worker and scheduler.
EXPOSE 8080 8081 8082 8083 8084
ENTRYPOINT ["goqueue"]

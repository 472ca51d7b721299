# One image for the controller and for the host of its local workers.
FROM python:3.12-slim-bookworm AS build
WORKDIR /src
COPY image ./image
RUN python -m venv --without-pip /opt/codeswarm \
 && pip --python /opt/codeswarm/bin/python install --no-cache-dir --no-deps \
    --only-binary :all: --require-hashes --requirement image/requirements.txt \
 && pip install --no-cache-dir --only-binary :all: --require-hashes \
    --requirement image/requirements-build.txt
COPY . .
RUN pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir /dist .

FROM python:3.12-slim-bookworm
LABEL org.opencontainers.image.title="codeswarm" \
      org.opencontainers.image.description="Teams of coding agents as declared resources" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.licenses="Apache-2.0"
# Versions are the release's own, so that a rebuild brings its security fixes.
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install --yes --no-install-recommends ca-certificates git openssh-client tini \
 && rm -rf /var/lib/apt/lists/* \
 && groupadd --gid 10000 codeswarm \
 && useradd --no-log-init --uid 10001 --gid 10000 --no-create-home \
    --home-dir /var/lib/codeswarm/home --shell /usr/sbin/nologin controller \
 && useradd --no-log-init --uid 10002 --gid 10000 --no-create-home \
    --home-dir /home/worker --shell /bin/bash worker
COPY --from=build /opt/codeswarm /opt/codeswarm
RUN --mount=type=bind,from=build,source=/dist,target=/dist \
    pip --python /opt/codeswarm/bin/python install --no-cache-dir --no-deps --no-index \
    --find-links /dist codeswarm==0.1.0
ENV PATH=/opt/codeswarm/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
USER 10001:10000
EXPOSE 4000
ENTRYPOINT ["tini", "--", "codeswarm"]

# The image with the agents' programs in it, for the container worker-host:
#   docker build --file image/agents.Dockerfile --build-arg BASE=codeswarm:0.1.0 --tag codeswarm-agents:0.1.0 .
ARG BASE=codeswarm:0.1.0
FROM ${BASE}
USER 0
# Versions of Debian's packages are the release's own, so that a rebuild brings its security fixes.
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install --yes --no-install-recommends bubblewrap nodejs npm socat \
 && rm -rf /var/lib/apt/lists/* \
 && npm install --global --no-audit --no-fund @openai/codex@0.169.0 \
 && npm cache clean --force \
 && pip --python /opt/codeswarm/bin/python install --no-cache-dir --only-binary :all: \
    claude-agent-sdk==0.2.187
USER 10001:10000

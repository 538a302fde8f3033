# The gateway's image: a static binary and nothing else. The context is the repository, or an unpacked release; the
# binary, bin/konvert-gateway, comes from deploy/release.sh or from gateway-source.Dockerfile.
FROM scratch
COPY bin/konvert-gateway /konvert-gateway
USER 10002:10002
ENV GATEWAY_LISTEN=0.0.0.0:8000 GATEWAY_ADMIN_LISTEN=0.0.0.0:8001
EXPOSE 8000 8001
HEALTHCHECK --interval=5s --timeout=5s --start-period=30s --retries=3 CMD ["/konvert-gateway", "health"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["/konvert-gateway"]

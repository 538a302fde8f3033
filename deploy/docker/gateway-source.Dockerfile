# The gateway's static binary, compiled in a container: for a machine without a Rust toolchain. Needs 2 GB of memory.
# install.sh copies /konvert-gateway out of the image into bin/.
ARG RUST_IMAGE=rust:1.88-bookworm
FROM ${RUST_IMAGE}
RUN apt-get update && apt-get install -y --no-install-recommends musl-tools
RUN rustup target add "$(uname -m)-unknown-linux-musl"
WORKDIR /source
COPY Cargo.toml Cargo.lock README.md ./
COPY src src
COPY benches benches
COPY tests tests
COPY deploy deploy
ARG KONVERT_COMMIT
# As in release.sh.
ENV CFLAGS=-DMY_ASSEMBLER_IS_TOO_OLD_FOR_512AVX
RUN KONVERT_COMMIT="${KONVERT_COMMIT:-unknown}" cargo build --profile dist --locked --bin konvert-gateway \
      --target "$(uname -m)-unknown-linux-musl" \
    && cp "target/$(uname -m)-unknown-linux-musl/dist/konvert-gateway" /konvert-gateway

# A static binary, nothing else, and no root. Build: docker build -t pipeline .
# Run: docker run --rm --user "$(id -u)" -v "$PWD:/work" pipeline run pipeline.yaml --mock
FROM rust:1.95-alpine AS build
# The grammars of `codebase_query`, compression and TLS have C in them.
RUN apk add --no-cache musl-dev gcc make
WORKDIR /source
COPY . .
RUN cargo build --locked --release --package pipeline-cli \
    && mkdir -p /root-fs/work /root-fs/tmp && chmod 1777 /root-fs/tmp && chown 65532:65532 /root-fs/work

FROM scratch
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY --from=build /root-fs/ /
COPY --from=build /source/target/release/pipeline /bin/pipeline
USER 65532:65532
WORKDIR /work
ENTRYPOINT ["/bin/pipeline"]

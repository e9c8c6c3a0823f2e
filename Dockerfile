# The image of Forebay: one static binary, certificates, no shell, no root.
#
#   docker build -t forebay .                      builds the binary, too
#   make image                                     takes the binary that make has built
#
# "ready" comes before "build" so that builders that go through the stages in order
# need no other image for it.

# What all images of Forebay are, but for their files.
FROM scratch AS base
ENV FOREBAY_STORAGE_DIR=/var/lib/forebay \
    FOREBAY_LOG_FORMAT=json \
    SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt
USER 65532:65532
EXPOSE 5000
ENTRYPOINT ["/forebay"]
CMD ["serve"]
HEALTHCHECK --interval=30s --timeout=5s --start-period=30s CMD ["/forebay", "healthcheck"]

# From a binary that is there: dist/image is laid out by make.
FROM base AS ready
COPY dist/image/root/ /
COPY --chown=65532:65532 dist/image/data/ /var/lib/forebay/
VOLUME /var/lib/forebay

# From the source.
FROM golang:1.26-bookworm AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG VERSION=devel
RUN make dist/image VERSION="$VERSION"

FROM base AS forebay
COPY --from=build /src/dist/image/root/ /
COPY --from=build --chown=65532:65532 /src/dist/image/data/ /var/lib/forebay/
VOLUME /var/lib/forebay

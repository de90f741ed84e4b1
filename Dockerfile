# The light server: the shipped models on ONNX Runtime, no torch.
#
#   docker build -t chromatune .
#   docker run --read-only --tmpfs /tmp --cap-drop ALL --security-opt no-new-privileges \
#     -e CHROMATUNE_TOKEN -p 127.0.0.1:8321:8321 chromatune

FROM python:3.12-slim-bookworm AS build
WORKDIR /source
COPY pyproject.toml constraints.txt README.md LICENSE NOTICE ./
COPY src ./src
RUN python -m venv /opt/chromatune \
    && /opt/chromatune/bin/pip install --no-cache-dir -c constraints.txt '.[web]'

FROM python:3.12-slim-bookworm
ENV PATH=/opt/chromatune/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
COPY --from=build /opt/chromatune /opt/chromatune
RUN useradd --system --uid 10001 --no-create-home --home-dir /tmp chromatune
USER 10001
EXPOSE 8321
HEALTHCHECK --interval=30s --timeout=5s --start-period=20s \
    CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8321/readyz', timeout=4)"]
STOPSIGNAL SIGTERM
# Without CHROMATUNE_TOKEN it does not start: others could come in
ENTRYPOINT ["chromatune", "serve", "--host", "0.0.0.0"]

# The one image definition: `docker build --build-arg FUNCTION=store .` makes the image of the function `store`. It holds
# Python, that function, shared/, and what functions/store/requirements.txt asks for: no Kafka client where none is used.
# tests/manifests runs the steps below in a fresh environment, and starts each function as the container does.
# The base is pinned by its tag alone: whoever builds for production pins its digest too.
FROM python:3.11.14-slim-bookworm AS dependencies
ARG FUNCTION
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
RUN python -m venv /venv
ENV PATH=/venv/bin:$PATH
WORKDIR /build
# Without the package's own files: they change often, and what it depends on seldom, so that this layer is kept.
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY functions/${FUNCTION}/requirements.txt ./
RUN mkdir shared && pip install --constraint constraints.txt --requirement requirements.txt && pip uninstall --yes pip setuptools

FROM python:3.11.14-slim-bookworm
ARG FUNCTION
COPY --from=dependencies /venv /venv
WORKDIR /app
COPY shared ./shared
COPY functions/${FUNCTION} ./functions/${FUNCTION}
# Its root file system is read-only in the cluster, so that nothing could be compiled there.
RUN /venv/bin/python -m compileall -q shared functions
WORKDIR /app/functions/${FUNCTION}
ENV PATH=/venv/bin:$PATH PYTHONPATH=/app/shared PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
ENV FUNCTION_TARGET=${FUNCTION} FUNCTION_SOURCE=main.py FUNCTION_USE_ASGI=true
USER 65532:65532
EXPOSE 8080
CMD ["python", "-m", "functions_framework"]

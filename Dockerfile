# The definition of all images: `docker build --build-arg FUNCTION=store .` makes the image of the function `store`. It has
# Python, the function, shared/ and the packages in functions/store/requirements.txt. A function that does not use
# Kafka has no Kafka client. `FUNCTION=operator` makes the image of the command line `twofold`: functions/operator has no
# code, and knative/base/operator.yaml has the command. tests/manifests runs these steps in a new environment, and starts
# each function as the container does. The base image has a fixed tag. For production, add its digest (docs/deploy.md).
FROM python:3.11.14-slim-bookworm AS dependencies
ARG FUNCTION
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
RUN python -m venv /venv
ENV PATH=/venv/bin:$PATH
WORKDIR /build
# This layer has only the dependencies: they change less often than the code, so the layer stays in the cache.
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY functions/${FUNCTION}/requirements.txt ./
RUN mkdir shared && pip install --constraint constraints.txt --requirement requirements.txt && pip uninstall --yes pip setuptools

FROM python:3.11.14-slim-bookworm
ARG FUNCTION
COPY --from=dependencies /venv /venv
WORKDIR /app
COPY shared ./shared
COPY functions/${FUNCTION} ./functions/${FUNCTION}
# In the cluster the root file system is read-only, so the code is compiled here.
RUN /venv/bin/python -m compileall -q shared functions
WORKDIR /app/functions/${FUNCTION}
ENV PATH=/venv/bin:$PATH PYTHONPATH=/app/shared PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
ENV FUNCTION_TARGET=${FUNCTION} FUNCTION_SOURCE=main.py FUNCTION_USE_ASGI=true
USER 65532:65532
EXPOSE 8080
CMD ["python", "-m", "functions_framework"]

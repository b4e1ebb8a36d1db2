# halfbyte: doors, router, gate, plan, evaluate and the batch verbs. Engines have images of their own.
FROM docker.io/library/python:3.12-slim
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY src ./src
# For images.ray of a platform that quantizes on Ray: --build-arg MORE="ray[default]"
ARG MORE=""
RUN pip install --no-cache-dir -c constraints.txt ".[gateway,evaluate]" ${MORE} && rm -rf /src
RUN useradd --uid 10001 --no-create-home halfbyte
WORKDIR /scratch
USER 10001
ENTRYPOINT []
CMD ["halfbyte", "--help"]

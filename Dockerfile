# The page on port 7860, as user 1000. Uploads, index and base model lie in the volume /data.
FROM python:3.12-slim

# bitsandbytes' CPU library is linked against it
RUN apt-get update && apt-get install -y --no-install-recommends libgomp1 \
    && rm -rf /var/lib/apt/lists/*

RUN useradd --create-home --uid 1000 user && mkdir /data && chown user /data
WORKDIR /home/user/app

# extra words for pip, such as a mirror; and the torch to take: for a GPU, --build-arg TORCH=torch
ARG PIP_ARGS=""
ARG TORCH="torch --index-url https://download.pytorch.org/whl/cpu"
COPY requirements.txt constraints.txt ./
# torch alone from its own index, which lacks the versions of what it needs; the next line brings those
RUN pip install --no-cache-dir ${PIP_ARGS} -c constraints.txt --no-deps ${TORCH}
RUN pip install --no-cache-dir ${PIP_ARGS} -c constraints.txt -r requirements.txt

COPY --chown=user app.py ./
COPY --chown=user ramole_core ./ramole_core
COPY --chown=user ui ./ui
COPY --chown=user adapters ./adapters
COPY --chown=user results ./results

ENV GRADIO_SERVER_NAME=0.0.0.0 \
    RAMOLE_DATA_DIR=/data \
    HF_HOME=/data/huggingface \
    PYTHONUNBUFFERED=1
USER 1000
# a start on the same kind of CPU does not wait for the compiler then
RUN python -m ramole_core.kernels.all
VOLUME /data
EXPOSE 7860
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:7860/health', timeout=4)"]
CMD ["python", "app.py"]

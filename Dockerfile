# The image of every node, head and workers alike: Ray, CUDA, what t2l needs, and t2l itself.
#
#   docker build -t registry.example.com/t2l:0.1.0 . && docker push registry.example.com/t2l:0.1.0
#
# For CPUs: --build-arg RAY_IMAGE=rayproject/ray:2.60.0-py311-cpu
ARG RAY_IMAGE=rayproject/ray:2.60.0-py311-gpu
FROM ${RAY_IMAGE}

WORKDIR /home/ray/t2l
RUN sudo chown ray:users .

# The dependencies come first: a change of the code then leaves their layer as it is.
COPY --chown=ray:users pyproject.toml constraints.txt README.md ./
RUN mkdir t2l && touch t2l/__init__.py \
    && pip install --no-cache-dir -c constraints.txt . \
    && pip uninstall --yes t2l && rm -r t2l build *.egg-info

COPY --chown=ray:users t2l t2l
COPY --chown=ray:users jobs jobs
COPY --chown=ray:users serve serve
COPY --chown=ray:users tune tune
RUN pip install --no-cache-dir --no-deps -e .

# serve/ is a folder of the checkout, not of the package. A job's own --working-dir comes before both.
ENV PYTHONPATH=/home/ray/t2l \
    TOKENIZERS_PARALLELISM=false \
    RAY_TRAIN_V2_ENABLED=1

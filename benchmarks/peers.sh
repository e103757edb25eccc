#!/bin/sh
# Install the peers that the project does not depend on, beside its environment. For `python -m benchmarks.train_step`:
# SpikingJelly into build/peers (appended to the path by the benchmark, never into .venv), Spyx and JAX into an environment
# of their own. For `python -m benchmarks.delays`: dcls into build/peers. PYTHON picks the Python for Spyx (3.11 or newer).
set -eu
cd "$(dirname "$0")/.."
.venv/bin/python -m pip install --quiet --upgrade --no-deps --target build/peers spikingjelly==2.0.0 loguru==0.7.3 dcls==0.1.1
test -x build/peers-jax/bin/python || "${PYTHON:-python3}" -m venv build/peers-jax
build/peers-jax/bin/python -m pip install --quiet spyx==1.0.0 jax==0.10.2 flax==0.12.8
echo "SpikingJelly and dcls are in build/peers, Spyx in build/peers-jax."

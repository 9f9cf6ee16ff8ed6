#!/bin/sh
# with_pyenv.sh ENV PACKAGE SCRIPT: run SCRIPT with PACKAGE in a virtual environment made once. Exit 77 (skipped) where PyPI cannot be reached.
set -eu
env=$1; package=$2; shift 2
if ! [ -f "$env/ok" ]; then
    rm -rf "$env"
    python3 -m venv "$env"
    "$env/bin/pip" install -q --disable-pip-version-check "$package" || { echo "skipped: cannot install $package (no PyPI here?)"; exit 77; }
    touch "$env/ok"
fi
exec "$env/bin/python3" "$@"

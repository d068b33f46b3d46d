#!/bin/sh
# venv.sh REQUIREMENTS TARGET: a virtualenv with these packages, and without what only their installation needs.
set -eu
requirements=$1 target=$2
python3 -m venv "$target"
"$target/bin/pip" install --quiet --no-cache-dir --disable-pip-version-check --only-binary :all: -r "$requirements"
"$target/bin/pip" uninstall --quiet --yes setuptools
"$target/bin/pip" uninstall --quiet --yes pip
find "$target" -depth -type d \( -name tests -o -name test \) -path '*/site-packages/*' -exec rm -rf {} +
find "$target" -name '*.so' -exec strip --strip-unneeded {} + 2>/dev/null || true
# A second client, for asyncio, that is as large as all the rest and that nobody here imports.
rm -rf "$target"/lib/python3*/site-packages/kubernetes/aio

"""Writes mesh/wire/generated from the .proto files beside this one: `python -m mesh.wire.generate [DIRECTORY]`.

The generated code is committed, so that only those who change a .proto need the compiler (grpcio-tools).
"""

from __future__ import annotations

import sys
from pathlib import Path

PROTOS = Path(__file__).parent
PACKAGE = "mesh/wire/generated"  # also the name of the files inside protobuf's pool, so that they clash with nobody's


def generate(root: Path) -> None:
    """Compile every .proto to `root`/mesh/wire/generated. Raises RuntimeError when the compiler refuses."""
    import grpc_tools  # type: ignore[import-untyped]
    from grpc_tools import protoc

    (root / PACKAGE).mkdir(parents=True, exist_ok=True)
    well_known = Path(grpc_tools.__file__).parent / "_proto"
    arguments = [f"-I{PACKAGE}={PROTOS}", f"-I{well_known}", f"--python_out={root}", f"--pyi_out={root}"]
    sources = [f"{PACKAGE}/{path.name}" for path in sorted(PROTOS.glob("*.proto"))]
    if protoc.main(["protoc", *arguments, *sources]) != 0:
        raise RuntimeError(f"protoc refused the files in {PROTOS}")


if __name__ == "__main__":
    generate(Path(sys.argv[1]) if len(sys.argv) > 1 else PROTOS.parents[1])

"""The committed protobuf code is what the .proto files say."""

from pathlib import Path

from mesh.wire import generate


def test_generated_code_is_up_to_date(tmp_path: Path) -> None:
    generate.generate(tmp_path)
    fresh = {path.name: path.read_text() for path in (tmp_path / generate.PACKAGE).iterdir()}
    committed_directory = generate.PROTOS / "generated"
    committed = {path.name: path.read_text() for path in committed_directory.iterdir() if "_pb2." in path.name}
    assert fresh == committed, "run: python -m mesh.wire.generate"

"""`python -m controller --store directory:PATH --state DIR --listen IP:15012`: see --help."""

from __future__ import annotations

import os
import sys

import uvloop

from controller.settings import read
from controller.store.interface import StoreError
from mesh.runtime import logs
from mesh.runtime.lines import LineWriter

STANDARD_ERROR = 2


def main() -> int:
    settings = read(sys.argv[1:])
    # gRPC reads this while it is imported. Its failures reach us as errors, and we say them in our own words.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    from controller.admin import AdminError
    from controller.authority.errors import AuthorityError
    from controller.main import run
    from controller.publish.server import ListenError

    writer = LineWriter(STANDARD_ERROR)
    try:
        logs.configure(writer, as_json=False, levels=settings.log_levels)
        uvloop.run(run(settings))
    except (AdminError, AuthorityError, ListenError, StoreError) as error:
        writer.write(f"controller: {error}")
        return 1
    finally:
        writer.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Python's cycle collector in a process that holds a large mesh.

It looks at everything that was made since it last looked, and at all there is when that has grown by a quarter. A mesh
of ten thousand pods is a million objects that stay: to read them takes twice as long with the collector's defaults as
with these, and each look at all of them later on stops the process for two tenths of a second.
"""

from __future__ import annotations

import gc

_YOUNG = 50_000  # objects between two looks at the youngest; 700 is Python's default
_MIDDLE = 20
_OLD = 100


def expect_much() -> None:
    """Before everything is read."""
    gc.set_threshold(_YOUNG, _MIDDLE, _OLD)


def keep_all() -> None:
    """What is there now is looked at once more and then never again; it is freed like all else, unless in a cycle."""
    gc.collect()
    gc.freeze()

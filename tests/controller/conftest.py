"""The API server of the stores' tests."""

from tests.store.conftest import api_server

__all__ = ["api_server"]

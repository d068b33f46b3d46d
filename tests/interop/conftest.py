from tests.worker.conftest import node, shared_node

__all__ = ["node", "shared_node"]

"""What drivers that add to the cache's key have in common."""

from __future__ import annotations

from tfx.dsl.components.base.base_driver import BaseDriver as LegacyBaseDriver
from tfx.orchestration.metadata import Metadata
from tfx.orchestration.portable.base_driver import BaseDriver


# TFX's compiler asks for the one base class, its launcher calls the other: its own drivers derive from both, too.
class KeyDriver(LegacyBaseDriver, BaseDriver):
    """A driver whose `run` returns exec properties, which thereby become part of the cache's key."""

    def __init__(self, mlmd_connection: Metadata) -> None:
        LegacyBaseDriver.__init__(self, mlmd_connection)
        BaseDriver.__init__(self, mlmd_connection)

"""Processes that multiprocessing started end with the one that started them, however that one ended."""

import multiprocessing
import os
import threading
from multiprocessing.connection import wait


def end_with_parent() -> None:
    """To be called in such a process, before its work: SIGTERM and SIGKILL, which nobody can pass on, end their target alone."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()

"""Clients that were open when the process forked, as gunicorn's `--preload` and `multiprocessing` do.

A child has the sockets of its parent's connections, and its event loop's epoll, but not the thread that ran the loop.
Whatever the child wrote to them or closed in order would disturb the parent. So it lets them lie and connects anew.
"""

import ctypes
import os
import weakref
from typing import Any, Protocol


class Forked(Protocol):
    """What is told of a fork."""

    def in_child(self) -> None:
        """The process is the child now: only this thread is left, and locks may be held for ever."""


_open: weakref.WeakValueDictionary[int, Forked] = weakref.WeakValueDictionary()


def watch(one: Forked) -> None:
    """Tell it of forks from now on."""
    _open[id(one)] = one


def forget(one: Forked) -> None:
    """Tell it no more."""
    _open.pop(id(one), None)


def abandon(*parts: Any) -> None:
    """Let no finaliser of these ever run, not even at the end of the process: a connection's would say goodbye to the
    server, on the socket that the parent uses."""
    for part in parts:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(part))


def _in_child() -> None:
    for reference in _open.valuerefs():
        if (one := reference()) is not None:
            one.in_child()


os.register_at_fork(after_in_child=_in_child)

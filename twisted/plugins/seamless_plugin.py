"""Tells twistd that there is a ``seamless`` command. Nothing else is here: twistd reads every plugin at every start."""

from twisted.application.service import ServiceMaker

seamless = ServiceMaker(
    "seamless",
    "seamless.tap",
    "A node of an overlay network that carries unmodified TCP applications.",
    "seamless",
)

"""seamless: an overlay network that carries unmodified TCP applications."""

__version__ = "0.1.0"

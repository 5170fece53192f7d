"""The echo in a program on Twisted: ``python echo_twisted.py``."""

from echo import main
from twisted.internet.defer import Deferred
from twisted.internet.task import react

react(lambda reactor: Deferred.fromCoroutine(main(b"hello from Twisted\n")))

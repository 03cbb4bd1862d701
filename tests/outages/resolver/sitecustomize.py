"""Stands between a process and its resolver, so that Capy's name can vanish or lead nowhere; Python imports it by itself."""

import os
import socket
import time

HOST = "capy.outage.test"
# The mode is read from this file at each look-up, and the time of each that is not answered well is kept beside it.
STATE = os.environ.get("OUTAGES_STATE")
CLOSED_PORT = 1

if STATE:
    resolved = socket.getaddrinfo

    def getaddrinfo(host, port, *args, **kwargs):
        if host not in (HOST, HOST.encode()):
            return resolved(host, port, *args, **kwargs)
        with open(STATE) as file:  # noqa: PTH123 - this runs before anything else in a process
            mode = file.read().strip()
        if mode:
            with open(f"{STATE}.log", "a") as log:  # noqa: PTH123
                log.write(f"{time.time()}\n")
        if mode == "unresolvable":
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return resolved("127.0.0.1", CLOSED_PORT if mode == "refused" else port, *args, **kwargs)

    socket.getaddrinfo = getaddrinfo

"""The text formats the contract names, checked in full: a value the service would refuse must not pass here."""

from __future__ import annotations

import re
from ipaddress import AddressValueError, IPv6Address

_UNRESERVED = r"A-Za-z0-9._~!$&'()*+,;=\-"
_ESCAPE = r"%[0-9A-Fa-f]{2}"
_SEGMENT = rf"(?:[{_UNRESERVED}:@/]|{_ESCAPE})*"
_TAIL = rf"(?:[{_UNRESERVED}:@/?]|{_ESCAPE})*"
_URI = re.compile(
    rf"""
    [A-Za-z][A-Za-z0-9+.-]*:
    (?:
        //
        (?:(?:[{_UNRESERVED}:]|{_ESCAPE})*@)?
        (?:\[(?:(?P<v6>[0-9A-Fa-f:.]+)|[vV][0-9A-Fa-f]+\.[{_UNRESERVED}:]+)\]|(?:[{_UNRESERVED}]|{_ESCAPE})*)
        (?::[0-9]*)?
        (?:/{_SEGMENT})?
    |
        (?!//){_SEGMENT}
    )
    (?:\?{_TAIL})?
    (?:\#{_TAIL})?
    """,
    re.VERBOSE,
)
# Labels with two hyphens in the third place are reserved for encoded ones.
_LABEL = re.compile(r"(?![A-Za-wyz0-9][A-Za-z0-9]--|[xX][A-Za-mo-z0-9]--)[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?")
_LONGEST_LOCAL_PART = 64
_LONGEST_DOMAIN = 253


def is_uri(value: object) -> bool:
    """Tell whether a text is an absolute URI after RFC 3986; anything but text passes."""
    if not isinstance(value, str):
        return True
    found = _URI.fullmatch(value)
    if found is None:
        return False
    try:
        return found["v6"] is None or bool(IPv6Address(found["v6"]))
    except AddressValueError:
        return False


def is_email(value: object) -> bool:
    """Tell whether a text is an address a mail server could take; anything but text passes."""
    if not isinstance(value, str):
        return True
    local, at, domain = value.rpartition("@")
    if not at or not 0 < len(local) <= _LONGEST_LOCAL_PART or len(domain) > _LONGEST_DOMAIN:
        return False
    return all(_LABEL.fullmatch(label) for label in domain.split("."))

"""Who may ask the servers on loopback: programs of this machine, and pages that the server itself has served.

A browser carries every page's requests to 127.0.0.1, and the passwords that it remembers with them. What it says of the
page that asks can't be forged by that page: the name in ``Host``, the page's ``Origin``, and ``Sec-Fetch-*``.
"""

import re
from collections.abc import Callable, Collection

LOOPBACK = frozenset({"localhost", "127.0.0.1", "[::1]"})

Header = Callable[[str], str]
"""A header's value by its name in small letters, empty without it."""


def is_named(host: str, names: Collection[str] = LOOPBACK) -> bool:
    """Whether a ``Host`` is one of these, whatever its port; a name that was rebound to loopback is none of them."""
    return re.sub(r":\d+$", "", host).lower() in names


def is_of_another_site(method: str, header: Header, *, links: bool) -> bool:
    """Whether a page of another site, or port, asks. With ``links`` it may lead here: then nothing comes back to it."""
    if site := header("sec-fetch-site"):
        leads = links and method in {"GET", "HEAD"} and header("sec-fetch-mode") == "navigate"
        return site not in {"same-origin", "none"} and not leads
    origin = header("origin")  # of browsers before 2023, and of none in a plain GET
    return bool(origin) and origin.partition("//")[2].lower() != header("host").lower()

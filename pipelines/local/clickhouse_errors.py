"""Errors in ClickHouse's own form, and the HTTP status that each code goes out with."""

import re

_CODE = re.compile(r"Code: (\d+)\.")
_PYTHON_FRAMES = re.compile(r"\n\nAt:\n(?:  .*\n?)+")
# What the engine wrapped around the same error once more.
_WRAPPED = re.compile(
    r"Code: (\d+)\. DB::Exception: (Code: \1\. DB::Exception: .*) \(version [^)]*\)\. \([A-Z0-9_]+\)\Z", re.DOTALL
)
_STATUS = {
    "400": "6 26 27 36 38 41 42 43 44 53 57 62 70 72 117 130 131 457",
    "401": "193 194",
    "403": "164 290 291 497 516",
    "404": "46 47 50 56 60 63 73 81 115 372",
    "413": "307",
    "501": "48",
    "503": "202 1002",
}
_STATUS_OF_CODE = {int(code): int(status) for status, codes in _STATUS.items() for code in codes.split()}


class ClickHouseError(Exception):
    """A refusal of the server; ``code`` and ``name`` as ClickHouse numbers them."""

    def __init__(self, code: int, message: str, name: str) -> None:
        super().__init__(f"Code: {code}. DB::Exception: {message} ({name})")
        self.code = code


def describe(error: BaseException, version: str) -> tuple[int, str]:
    """(code, text) of a refusal or of what the engine raised."""
    words = error.object.decode(errors="replace") if isinstance(error, UnicodeDecodeError) else str(error)
    if type(error) is RuntimeError and not words:  # Python below 3.11.5 drops words that are no text (gh-107915)
        words = "Code: 117. DB::Exception: Refused, in words that quote bytes which are no UTF-8. (INCORRECT_DATA)"
    text = _PYTHON_FRAMES.sub("", words)
    found = _CODE.search(text)
    if found is None:
        return (
            1002,
            f"Code: 1002. DB::Exception: {text or type(error).__name__}. (UNKNOWN_EXCEPTION) (version {version})",
        )
    text = text[found.start() :]
    while wrapped := _WRAPPED.match(text):
        text = wrapped[2]
    return int(found[1]), f"{text} (version {version} (official build))"


def status_of(code: int) -> int:
    """The HTTP status for an error code; 500 for most."""
    return _STATUS_OF_CODE.get(code, 500)

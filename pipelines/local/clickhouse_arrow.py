"""One Arrow IPC stream out of many: the engine gives each block as a stream of its own."""

import struct

_END = b"\xff\xff\xff\xff\x00\x00\x00\x00"


class ArrowSplice:
    """Keeps the first stream's schema and the batches of all; the end mark is written once."""

    def __init__(self) -> None:
        self._schema_sent = False

    def add(self, stream: bytes) -> bytes:
        """What is to be sent of one whole stream."""
        end = len(stream) - len(_END) if stream.endswith(_END) else len(stream)
        if not self._schema_sent:
            self._schema_sent = True
            return stream[:end]
        mark, length = struct.unpack_from("<Ii", stream)
        if mark != 0xFFFFFFFF:
            raise ValueError("The engine gave an Arrow stream without its first mark.")
        return stream[8 + length : end]  # the schema is a message without a body

    def end(self) -> bytes:
        """The end mark, where anything was sent."""
        return _END if self._schema_sent else b""

"""Message classes of ONNX and Caffe, built at run time from the few fields that weights and graphs need.

Protobuf skips fields that a schema lacks, so that nothing but the package `protobuf` is needed: neither `onnx` nor
`caffe`. It bounds nesting, and copies no more than a file holds.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..errors import MissingDependencyError, WeightsError
from .bounded import MAX_FILE_BYTES, read_bounded

__all__ = ["Fields", "parse"]

Fields = dict[str, dict[str, tuple[int, str]]]
"""Message -> field -> number and type: a scalar type or a message, with `*` behind it if repeated."""


def parse(path: Path, schema: Fields, message: str, *, what: str) -> Any:
    """Parse a file as a message.

    Args:
        path: The file.
        schema: The messages; fields that are not listed are skipped.
        message: The one that the file is.
        what: Name of the format, for the error.

    Raises:
        MissingDependencyError: If `protobuf` is not installed.
        WeightsError: If the file is not such a message.
    """
    with MissingDependencyError.named():
        from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
        from google.protobuf.message import DecodeError
    field_type = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name=f"{message}.proto", package="squeezenet", syntax="proto2")
    for name, fields in schema.items():
        entry = file.message_type.add(name=name)
        for field, (number, kind) in fields.items():
            label = field_type.LABEL_REPEATED if kind.endswith("*") else field_type.LABEL_OPTIONAL
            kind = kind.rstrip("*")
            described = entry.field.add(name=field, number=number, label=label)
            if kind in schema:
                described.type, described.type_name = field_type.TYPE_MESSAGE, f".squeezenet.{kind}"
            else:
                described.type = getattr(field_type, f"TYPE_{kind.upper()}")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    found = message_factory.GetMessageClass(pool.FindMessageTypeByName(f"squeezenet.{message}"))()
    try:
        found.ParseFromString(read_bounded(path, max_bytes=MAX_FILE_BYTES))
    except DecodeError:
        raise WeightsError(f"expected {what}, got a file that is not one, or only a part of one", source=path) from None
    return found

"""The three kinds of value a spec can speak of, and the vectors that only a product reads."""

from __future__ import annotations

from enum import Enum

Scalar = bool | int | float


class Type(Enum):
    """The type of a value. Widths are not types: the plan decides whether an INT needs 64 bits."""

    BOOL = "bool"
    INT = "int"
    FLOAT = "float"
    VECTOR = "vector"  # a row of a float input: an operand of dot(x, y), and of nothing else


def type_of(value: Scalar) -> Type:
    """The type of a Python scalar (``bool`` before ``int``, since Python's bool is an int)."""
    if isinstance(value, bool):
        return Type.BOOL
    return Type.INT if isinstance(value, int) else Type.FLOAT


#: The types that a const or a param may be declared with.
SCALARS = (Type.BOOL, Type.INT, Type.FLOAT)

# What an input tensor may hold, and the type its elements are read as.
DTYPES: dict[str, Type] = {
    "float16": Type.FLOAT,
    "bfloat16": Type.FLOAT,
    "float32": Type.FLOAT,
    "int32": Type.INT,
    "int64": Type.INT,
    "bool": Type.BOOL,
}

r"""The docstring's text: indentation and escapes, and back to a form that is ASCII and harmless.

``decode_docstring('\n    Two\n      lines, caf\\u00e9.\n    ') == 'Two\n  lines, café.'``; for every
text that a docstring can hold, ``decode_docstring(encode_docstring(text)) == text``.
"""

from __future__ import annotations

import re

_SIMPLE = {"\\": "\\", '"': '"', "n": "\n", "t": "\t"}
_ESCAPE = re.compile(r"\\(x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|[\s\S])")
# What a docstring may not hold, written out or escaped: control characters and halves of surrogate pairs.
_FORBIDDEN = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


def decode_docstring(raw: str) -> str:
    """The docstring whose source text, between the quotes, is ``raw``.

    Common indentation goes first, escapes (those of Python's strings that name a character) after it; a
    backslash before anything else stays. Raises ValueError where an escape names no printable character.
    """
    return _checked(_ESCAPE.sub(_unescape, _dedent(raw)))


def _unescape(match: re.Match[str]) -> str:
    body = match.group(1)
    if body[0] in "xuU" and len(body) > 1:
        code = int(body[1:], 16)
        if code > 0x10FFFF:
            raise ValueError(f"no character has the code \\{body}")
        return chr(code)
    return _SIMPLE.get(body, match.group())


def _checked(text: str) -> str:
    odd = _FORBIDDEN.search(text)
    if odd:
        raise ValueError(f"the docstring holds {odd.group()!a}, which is not text")
    return text


def _dedent(raw: str) -> str:
    lines = [line.rstrip() for line in raw.replace("\r", "").replace("\f", " ").expandtabs().split("\n")]
    margin = min((len(line) - len(line.lstrip(" ")) for line in lines[1:] if line), default=0)
    return "\n".join([lines[0], *(line[margin:] for line in lines[1:])]).strip()


def encode_docstring(text: str) -> str:
    """Source text for a docstring that holds ``text``: printable ASCII and newlines, every quote escaped."""
    lines = []
    for line in text.split("\n"):
        escaped = "".join(map(_escape, line))
        for edge in (r"^ ", r" $"):  # outer spaces would be taken for indentation
            escaped = re.sub(edge, r"\\x20", escaped)
        lines.append(escaped)
    kept = len(lines)
    while kept > 1 and not lines[kept - 1]:
        kept -= 1
    first = next((i for i, line in enumerate(lines) if line), 0)
    outer = "\\n" * (len(lines) - kept)
    return "\\n" * first + "\n".join(lines[first:kept]) + outer


def _escape(character: str) -> str:
    if character in '\\"':
        return "\\" + character
    if " " <= character <= "~":
        return character
    if character == "\t":
        return "\\t"
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"

"""Tables: for a terminal, in columns; and for a document, in Markdown."""

from __future__ import annotations

from collections.abc import Sequence


def markdown(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(c) for c in line) + " |" for line in lines)


def columns(head: Sequence[str], rows: Sequence[Sequence[object]], width: int = 100) -> str:
    """Aligned columns; the last one is wrapped where a line would be longer than `width`."""
    cells = [[str(c) for c in line] for line in (head, *rows)]
    sizes = [max(len(line[i]) for line in cells) for i in range(len(head))]
    before = sum(sizes[:-1]) + 2 * (len(head) - 1)
    room = max(20, width - before)
    out = []
    for line in cells:
        first, *more = wrapped(line[-1], room)
        fixed = "".join(c.ljust(n + 2) for c, n in zip(line[:-1], sizes, strict=False))
        out.append((fixed + first).rstrip())
        out += [" " * before + rest for rest in more]
    return "\n".join(out)


def wrapped(text: str, room: int) -> list[str]:
    lines = [""]
    for word in text.split(" "):
        if lines[-1] and len(lines[-1]) + 1 + len(word) > room:
            lines.append(word)
        else:
            lines[-1] += (" " if lines[-1] else "") + word
    return lines

"""Conversations: each reply with the turns before it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from cube3d.errors import UserError
from cube3d.pairs.readers.record import REQUIRED, Record

TURNS = ("turns", "messages")
TURN = (*REQUIRED, "context")
"""What a record of one pair has in place of a conversation."""

ROLES = ("user", "assistant", "system")


def is_dialogue(record: dict[str, object]) -> bool:
    return any(key in record for key in TURNS)


def replies(path: Path, place: str, record: dict[str, object]) -> Iterator[Record]:
    """A record for each reply of a conversation: what it replies to, the reply, and the turns before both.

    ``turns`` or ``messages`` holds either texts, each of which replies to the one before, or objects with
    ``role`` and ``content``, where the assistant replies to the user. Messages of one role in a row are one turn;
    those of the system set the stage and are no turn. The other names of the record are labels of each pair.

    Raises:
        UserError: no list, a message without text, an unknown role, a conversation without a reply, two conversations
            in a record, or one beside a question, an answer or a context.
    """
    where = f"{path}{place}"
    key = next(key for key in TURNS if key in record)
    others = [name for name in (*TURNS, *TURN) if name != key and record.get(name)]
    if others:
        found = " and ".join(map(repr, (key, *others)))
        raise UserError(f"{where}: has {found}; expected one conversation, or one pair without")
    messages = record[key]
    if not isinstance(messages, list):
        raise UserError(f"{where}: {key!r} is {messages!r}; expected a list of texts, or of objects with a role")
    if all(isinstance(message, str) for message in messages):
        texts = list(messages)
        ends = list(range(1, len(texts)))
    else:
        roles, texts = _by_role(where, key, messages)
        ends = [i for i in range(1, len(roles)) if roles[i] == "assistant"]
    if not ends:
        raise UserError(f"{where}: {key!r} holds no reply; expected at least two turns")
    labels = {name: value for name, value in record.items() if name != key}
    dialogue = record.get("id", f"{path.name}{place}")
    for end in ends:
        turn: dict[str, object] = {"question": texts[end - 1], "answer": texts[end], "context": texts[: end - 1]}
        yield f"{place} turn {end + 1}", {"dialogue": str(dialogue), **labels, **turn}


def _by_role(where: str, key: str, messages: list[object]) -> tuple[list[str], list[str]]:
    roles: list[str] = []
    texts: list[str] = []
    for number, message in enumerate(messages, start=1):
        if not isinstance(message, dict):
            raise UserError(f"{where}: {key!r} item {number} is {message!r}; expected an object with role and content")
        role, content = message.get("role"), message.get("content")
        if role not in ROLES:
            raise UserError(f"{where}: {key!r} item {number}: unknown role {role!r}; valid: {', '.join(ROLES)}")
        if not isinstance(content, str) or not content.strip():
            raise UserError(f"{where}: {key!r} item {number}: 'content' is {content!r}; expected text")
        if role == "system":
            continue
        if roles and roles[-1] == role:
            texts[-1] += "\n" + content.strip()
        else:
            roles.append(role)
            texts.append(content.strip())
    return roles, texts

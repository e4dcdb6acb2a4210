"""What this decoder raises."""


class Corrupt(ValueError):
    """The bytes break a rule of the format."""


class Unsupported(ValueError):
    """The bytes may be right, but belong to a version, kind or coder that this decoder does not know."""


def require(condition: bool, message: str) -> None:
    """Raise Corrupt unless the condition holds."""
    if not condition:
        raise Corrupt(message)

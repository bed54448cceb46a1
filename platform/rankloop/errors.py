"""How a service refuses. The message says what happened and what to do."""


class Refused(Exception):
    """A service refuses; the message says why and what to do. Views turn it into a 400 or a form error."""


class Conflict(Refused):
    """The same key came with other content, or the row has moved on. Views turn it into a 409."""

"""What `messages` exports is what others may rely on."""

import messages


def test_the_exported_names_are_these() -> None:
    assert messages.__all__ == [
        "DEFAULT_LIMITS",
        "REGISTRY",
        "CancelSaga",
        "Command",
        "Envelope",
        "Event",
        "Limits",
        "Message",
        "NotStarted",
        "Raw",
        "Registry",
        "body_hash",
        "business_key",
        "encode",
        "headers_of",
        "open_envelope",
        "parse",
        "upcast",
    ]


def test_every_exported_name_exists_and_is_explained() -> None:
    for name in messages.__all__:
        assert getattr(messages, name).__doc__

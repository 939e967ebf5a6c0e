"""What booking a trip tells others has the wire names and fields that they rely on."""

from __future__ import annotations

from messages import REGISTRY, Event
from messages.catalog import trip

TOLD = {
    "travel.TripRequested": ["trip_id", "traveller", "price", "with_car"],
    "trip.TripConfirmed": ["trip_id", "traveller"],
    "trip.TripFailed": ["trip_id", "traveller"],
}
CLASSES = {message.message_name: message for message in REGISTRY if message.__module__ == trip.__name__}


def test_the_names_and_fields_of_what_is_told_are_these() -> None:
    assert {name: list(CLASSES[name].model_fields) for name in TOLD} == TOLD
    assert all(issubclass(CLASSES[name], Event) for name in TOLD)


def test_every_message_says_which_trip_it_is_about() -> None:
    assert [name for name, message in CLASSES.items() if "trip_id" not in message.model_fields] == []

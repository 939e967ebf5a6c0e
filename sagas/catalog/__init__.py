"""The sagas of this repository, one file per business process."""

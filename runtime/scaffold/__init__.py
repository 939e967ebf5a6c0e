"""The files of a new business process: their names, their text and their places. Writes nothing itself."""

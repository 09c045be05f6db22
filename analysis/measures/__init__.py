"""The numbers of a run: by cell, by turn of the conversation, by load, and the client's own."""

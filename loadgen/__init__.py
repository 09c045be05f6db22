"""What asks and listens: the Locust adapter, the asyncio engine, and the writer of run directories."""

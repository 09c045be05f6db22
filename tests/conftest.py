"""What holds for every test."""

from hypothesis import settings

# A stalled machine is no property of the code: examples may take as long as they need.
settings.register_profile("suite", deadline=None)
settings.load_profile("suite")

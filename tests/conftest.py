"""What holds for every test."""

from hypothesis import settings

# A stalled machine is no property of the code: examples may take as long as they need.
# `make test` looks for a counterexample in fewer tries, `make test-all` in Hypothesis's usual hundred.
settings.register_profile("suite", deadline=None, max_examples=30)
settings.register_profile("thorough", deadline=None)
settings.load_profile("suite")

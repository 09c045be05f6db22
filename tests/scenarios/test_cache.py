"""What prompts share: tags that keep them apart, none of them, or a start that is the same for everybody."""

from __future__ import annotations

import pytest

from loadgen.options._values import cache, salt
from scenarios import NO_TAGS, load, opening, plan, with_common_start


def test_without_tags_a_conversation_is_asked_as_it_is_written_at_every_level() -> None:
    conversation = plan(load("choose"), seed=0, k=3)
    assert opening(conversation, NO_TAGS, 0) == opening(conversation, NO_TAGS, 1)
    assert opening(conversation, NO_TAGS, 0) != opening(conversation, "00ff", 0)
    assert opening(conversation, NO_TAGS, 0)[-1]["content"] == conversation.turns[0].user


def test_a_share_of_each_prompt_is_the_same_for_everybody() -> None:
    first, second = (with_common_start(plan(load("choose"), seed=0, k=k), 0.5) for k in (0, 1))
    a, b = (opening(each, "00ff", 0) for each in (first, second))
    words = min(len(message["content"].split()) for message in (a[0], b[0]))
    assert a[0]["content"].split()[:words] == b[0]["content"].split()[:words]
    assert a[1]["content"] != b[1]["content"]
    own = len(first.turns[0].user.split())
    assert len((first.system or "").split()) == pytest.approx(own, rel=0.2)
    assert opening(first, "00ff", 1)[0] != a[0], "another level finds nothing of this one"


def test_what_cache_and_salt_may_be() -> None:
    assert (cache("warm"), cache("shared:0.50"), salt("NONE"), salt("00FF")) == (
        "warm",
        "shared:0.5",
        "none",
        "00ff",
    )
    for wrong in ("lukewarm", "shared", "shared:1", "cold:1"):
        with pytest.raises(ValueError, match=r"shared|number"):
            cache(wrong)

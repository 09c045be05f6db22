"""What prompts share: tags that keep them apart, none of them, or a start that is the same for everybody."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from loadgen.options._values import cache, salt
from scenarios import (
    NO_TAGS,
    MeasuredTexts,
    fit_to_tokenizer,
    load,
    opening,
    plan,
    texts_to_measure,
    with_common_start,
)


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


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
@pytest.mark.parametrize(("own", "common"), [(4.0, 1.2), (2.5, 3.0)])
def test_the_share_is_one_of_the_served_models_tokens_where_they_were_measured(
    share: float, own: float, common: float
) -> None:
    conversation = plan(load("explain"), seed=0, k=0)
    found = with_common_start(conversation, share, MeasuredTexts(own, common))
    words = (found.system or "").removesuffix(conversation.system or "").split()
    common_tokens = sum(not word[0].isdigit() for word in words) * common
    own_tokens = len(f"{conversation.system or ''} {conversation.turns[0].user}".strip()) / own
    assert common_tokens / (common_tokens + own_tokens) == pytest.approx(share, abs=0.02)


@pytest.mark.parametrize("characters_per_token", [2.5, 4.0, 6.0])
def test_prompts_of_a_trace_have_their_length_in_the_served_models_tokens(
    tmp_path: Path, characters_per_token: float
) -> None:
    path = tmp_path / "trace.jsonl"
    row = {"timestamp": 0, "input_length": 1024, "output_length": 4, "hash_ids": [1, 2]}
    path.write_text(json.dumps(row) + "\n")
    scenario = load(str(path))
    fit_to_tokenizer(scenario, MeasuredTexts(characters_per_token, 1.0))
    (turn,) = plan(scenario, seed=0, k=0).turns
    assert len(turn.user) == pytest.approx(1024 * characters_per_token, abs=1)
    assert turn.prompt_tokens == 1024


def test_enough_text_is_measured_for_a_mean() -> None:
    page, common = texts_to_measure()
    assert len(page) == 20_000
    assert len(common.split()) == 800 + 800 // 16, "with a number at each end"


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

"""What a server says of itself on /metrics; whatever it says, the engine lives."""

from __future__ import annotations

import asyncio
import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import loadgen.engine._health as module
from loadgen._messages import ServerSampled
from loadgen.engine._health import samples, watch_server
from loadgen.options._settings import Settings
from turnbench.clock import Timeline
from turnbench.server_metrics import SERVER_METRICS, histogram, named

PAGE = """# HELP vllm:num_requests_running Running.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="m"} 3.0
vllm:num_requests_running{engine="1",model_name="m"} 2.0
vllm:kv_cache_usage_perc{note="a } and a \\" in it"} 2.5e-01 1700000000000
vllm:ttft_seconds_bucket{le="0.1"} 5.0
vllm:ttft_seconds_sum 1.5
vllm:ttft_seconds_count 5
vllm:ttft_seconds_created 1.7e+09
vllm:broken 1.2.3
vllm:word e
vllm:nothing NaN
vllm:endless +Inf
python_gc_total 7
"""


def test_samples_are_summed_over_labels_and_the_rest_is_discarded() -> None:
    assert asyncio.run(samples(PAGE)) == {
        "vllm:num_requests_running": 5.0,
        "vllm:kv_cache_usage_perc": 0.25,
        "vllm:ttft_seconds_sum": 1.5,
        "vllm:ttft_seconds_count": 5.0,
    }


@pytest.mark.parametrize(
    "line",
    ['vllm:x{a="b",\x1f=e} 1', "vllm:x " + "9" * 400, 'vllm:x{a="b} 1', "vllm:x{" + 'a="b",' * 5000 + "} 1"],
    ids=["control character", "huge", "open quote", "long line"],
)
def test_a_line_that_is_broken_discards_itself_alone(line: str) -> None:
    assert asyncio.run(samples(f"{line}\n{PAGE}")) == asyncio.run(samples(PAGE))


@pytest.mark.parametrize(
    ("page", "name", "value"),
    [
        ('sglang:token_usage{dp_rank="%d"} 0.%d', "sglang:token_usage", 0.25),
        ('sglang:num_running_reqs{dp_rank="%d"} %d', "sglang:num_running_reqs", 5),
        ('trtllm_kv_cache_utilization{rank="%d"} 0.%d', "trtllm_kv_cache_utilization", 0.25),
        ('vllm:gpu_cache_usage_perc{engine="%d"} 0.%d', "vllm:gpu_cache_usage_perc", 0.25),
    ],
)
def test_several_engines_of_every_server_are_summed_or_averaged(page: str, name: str, value: float) -> None:
    assert asyncio.run(samples("\n".join([page % (0, 2), page % (1, 3)])))[name] == pytest.approx(value)


ENGINES = """vllm:kv_cache_usage_perc{engine="0",model_name="m1"} 0.40
vllm:kv_cache_usage_perc{engine="1",model_name="m1"} 0.50
vllm:num_requests_running{engine="0",model_name="m1"} 3.0
vllm:num_requests_running{engine="1",model_name="m1"} 5.0
vllm:prefix_cache_hits_total{engine="0",model_name="m1"} 100.0
vllm:prefix_cache_hits_total{engine="1",model_name="m1"} 50.0
sglang:token_usage{tp_rank="0"} 0.2
sglang:token_usage{tp_rank="1"} 0.4
nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="fraction",model="m"} 0.25
nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="used",model="m"} 40
nv_trt_llm_request_metrics{model="m",request_type="waiting",version="1"} 7
llamacpp:kv_cache_usage_ratio 0.5
"""


def test_counts_of_engines_are_summed_and_shares_averaged() -> None:
    found = asyncio.run(samples(ENGINES))
    assert found["vllm:kv_cache_usage_perc"] == pytest.approx(0.45)
    assert found["sglang:token_usage"] == pytest.approx(0.3)
    assert (found["vllm:num_requests_running"], found["vllm:prefix_cache_hits_total"]) == (8, 150)


@pytest.mark.parametrize(
    ("page", "key", "value"),
    [
        ('vllm:gpu_cache_usage_perc{engine="0"} 0.5', "kv_share", 0.5),
        ("sglang:num_queue_reqs 4", "waiting", 4),
        ("tgi_batch_current_size 2", "running", 2),
        ("llamacpp:tokens_predicted_total 90", "output_tokens", 90),
        ('nv_trt_llm_request_metrics{request_type="waiting"} 7', "waiting", 7),
        ("litellm_in_flight_requests 3", "running", 3),
        ("sglang:num_retracted_reqs_total 2", "preemptions", 2),
        ("llamacpp:spec_decode_num_accepted_tokens_total 5", "accepted_tokens", 5),
        ("llamacpp:prompt_tokens_cached_total 6", "cache_hits", 6),
    ],
)
def test_each_servers_names_are_known(page: str, key: str, value: float) -> None:
    assert named(asyncio.run(samples(page)))[key] == value


def test_the_newest_of_vllm_s_names_are_those_of_the_vllm_that_was_recorded() -> None:
    recording = next((Path(__file__).parents[1] / "conformance" / "recordings").glob("vllm-*.json"))
    page = json.loads(recording.read_text(encoding="utf-8"))["answers"]["GET /metrics"]["body"]
    known = {line.split()[2] for line in page.splitlines()}
    newest = {
        metric.key: next((name for name in metric.names if name.startswith("vllm:")), None)
        for metric in SERVER_METRICS
    }
    missing = {
        key for key, name in newest.items() if name and not {name, name.removesuffix("_total")} & known
    }
    of_speculation = {"drafted_tokens", "accepted_tokens"}
    assert missing == {"cache_hit_share", "acceptance_share"} | of_speculation, "shares are of older ones"


def test_the_waits_of_a_servers_histograms_are_known_between_two_samples() -> None:
    def page(counts: list[int], total: float) -> str:
        name = "vllm:time_to_first_token_seconds"
        bounds = zip(["0.1", "0.5", "+Inf"], counts, strict=True)
        lines = [f'{name}_bucket{{engine="{e}",le="{le}"}} {n}' for le, n in bounds for e in (0, 1)]
        return "\n".join([*lines, f"{name}_sum {total}", f"{name}_count {counts[-1] * 2}"])

    before, after = (asyncio.run(samples(page(*each))) for each in (([1, 1, 1], 0.1), ([3, 9, 9], 6.1)))
    found = histogram("ttft_s", before, after)
    assert found is not None
    assert (found.counts, found.count, found.mean_s) == ((4, 12, 0), 16, 0.375)
    assert (found.percentile_s(0.2), found.percentile_s(0.99)) == ((0, 0.1), (0.1, 0.5))
    assert histogram("ttft_s", after, before) is None, "the server was restarted"
    assert histogram("itl_s", before, after) is None


def test_a_histogram_of_milliseconds_is_one_of_seconds_by_our_key() -> None:
    name = "nv_inference_first_response_histogram_ms"
    page = f'{name}_bucket{{model="m",le="100"}} 3\n{name}_bucket{{model="m",le="+Inf"}} 4\n{name}_sum 900\n'
    found = histogram("ttft_s", {}, asyncio.run(samples(page)))
    assert found is not None
    assert (found.percentile_s(0.5), found.mean_s) == ((0, 0.1), 0.225)


def test_only_waits_keep_their_buckets() -> None:
    page = 'vllm:x_bucket{le="1"} 2\nvllm:inter_token_latency_seconds_bucket{le="1",a="}"} x\n'
    page += 'sglang:queue_time_seconds_bucket{a="b",le="+Inf"} 3\n'
    page += 'vllm:request_queue_time_seconds_bucket{le="sk"} 1'
    assert asyncio.run(samples(page)) == {'sglang:queue_time_seconds_bucket{le="+Inf"}': 3}


def test_a_counter_keeps_the_name_that_the_server_gave_it() -> None:
    page = "# TYPE vllm:preemptions counter\nvllm:preemptions 4\n# TYPE tgi_n_total counter\ntgi_n_total 3\n"
    assert asyncio.run(samples(page)) == {"vllm:preemptions": 4.0, "tgi_n_total": 3.0}


@given(st.text() | st.text(st.sampled_from('vllm:{}" \n+-.0123eEnaNfiI')).map("vllm:x ".__add__))
def test_any_page_gives_finite_numbers(page: str) -> None:
    assert all(math.isfinite(value) for value in asyncio.run(samples(page)).values())


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Watch a URL until `lines` samples have come, or until it ends by itself."""
    monkeypatch.setattr(module, "_EVERY_S", 0.01)

    async def watched(url: str, lines: int = 1, **settings: Any) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        enough = asyncio.Event()

        def emit(message: ServerSampled) -> None:
            found.append(json.loads(message.line))
            if len(found) >= lines:
                enough.set()

        headers = {"Authorization": "Bearer key", "Accept": "text/event-stream"}
        task = asyncio.create_task(watch_server(Settings(host=url, **settings), headers, Timeline(), emit))
        wait = asyncio.create_task(enough.wait())
        done, _ = await asyncio.wait({task, wait}, timeout=5, return_when=asyncio.FIRST_COMPLETED)
        assert done, "neither samples nor an end"
        for one in (task, wait):
            one.cancel()
        ended = await asyncio.gather(task, wait, return_exceptions=True)
        assert [error for error in ended if isinstance(error, Exception)] == []
        return found

    return watched


def page_of(*pages: tuple[str, bytes]) -> Any:
    """A script that answers the n-th request of all with the n-th of these, and then with the last."""
    answered = 0

    async def script(peer: Any) -> None:
        nonlocal answered
        await peer.request()
        status, text = pages[min(answered, len(pages) - 1)]
        answered += 1
        await peer.head(status, f"Content-Length: {len(text)}", "Connection: close")
        await peer.send(text)

    return script


async def test_a_sample_a_second_is_emitted_with_its_time(serve: Any, watch: Any) -> None:
    server = await serve(page_of(("200 OK", PAGE.encode())))
    first, second = (await watch(server.url + "/v1", 2))[:2]
    assert first["vllm:num_requests_running"] == 5.0
    assert first["t_ns"] < second["t_ns"]
    assert server.requests[0].startswith(b"GET /metrics ")
    assert b"Authorization: Bearer key" in server.requests[0]


@pytest.mark.parametrize("status", ["404 Not Found", "401 Unauthorized", "302 Found"])
async def test_without_such_a_page_it_ends_by_itself(serve: Any, watch: Any, status: str) -> None:
    server = await serve(page_of((status, b"")))
    assert await watch(server.url) == []
    assert [request.split()[1] for request in server.requests] == [
        *(b"/metrics", b"/metrics/", b"/prometheus/metrics/")
    ]


@pytest.mark.parametrize(
    ("first", "page"),
    [
        ([("307 Temporary Redirect", b"")], b"litellm_in_flight_requests 3\n"),
        ([("200 OK", b'[{"iter": 1}]'), ("404 Not Found", b"")], b"trtllm_num_requests_running 3\n"),
        ([("404 Not Found", b"no"), ("404 Not Found", b"no")], b"vllm:num_requests_running 3\n"),
    ],
)
async def test_metrics_are_found_where_the_server_has_them(
    serve: Any, watch: Any, first: list[Any], page: bytes
) -> None:
    server = await serve(page_of(*first, ("200 OK", page)))
    one, two = (await watch(server.url, 2))[:2]
    assert {named(sample)["running"] for sample in (one, two)} == {3}
    assert len({request.split()[1] for request in server.requests[len(first) :]}) == 1


async def test_a_server_that_is_down_for_a_while_is_asked_again(serve: Any, watch: Any) -> None:
    good = PAGE.encode()
    server = await serve(page_of(("503 Busy", b"later"), ("200 OK", b"\xff\xfe not text"), ("200 OK", good)))
    (found,) = (await watch(server.url))[:1]
    assert found["vllm:num_requests_running"] == 5.0


@pytest.mark.parametrize("how", ["hangs", "hangs within the page", "is reset", "is reset within the page"])
async def test_a_page_that_does_not_come_is_left_out_and_asked_for_again(
    serve: Any, watch: Any, how: str
) -> None:
    asked = 0

    async def script(peer: Any) -> None:
        nonlocal asked
        await peer.request()
        asked += 1
        if asked > 1 or "within" in how:
            await peer.head("200 OK", f"Content-Length: {len(PAGE)}")
        if asked > 1:
            await peer.send(PAGE.encode())
        elif "reset" in how:
            await asyncio.sleep(0.02)
            peer.reset()
        else:
            await peer.until_closed()

    found = await watch((await serve(script)).url, connect_timeout_s=0.1)
    assert found[0]["vllm:num_requests_running"] == 5.0


async def test_an_endless_page_is_read_in_part(serve: Any, watch: Any) -> None:
    async def script(peer: Any) -> None:
        await peer.request()
        await peer.head("200 OK", "Transfer-Encoding: chunked")
        await peer.chunk(PAGE.encode())
        while True:
            await peer.chunk(b"x" * 1_000_000)

    server = await serve(script)
    assert (await watch(server.url))[0]["vllm:num_requests_running"] == 5.0

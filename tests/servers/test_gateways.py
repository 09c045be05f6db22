"""Gateways in front of a real vLLM: what each does to answers is named, and no token is lost or doubled."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import trustme

from tests.servers.conftest import PLAN_TURNS, Play, free_port, program
from tests.servers.install import python_of

pytestmark = pytest.mark.servers

PASSWORD = "open:sesame"
KEY = "sk-turnbench-1"
NGINX = """
user root; daemon off; pid {home}/nginx.pid; error_log stderr; worker_processes 1;
events {{ worker_connections 512; }}
http {{
  access_log off;
  client_body_temp_path {home}/a; proxy_temp_path {home}/b; fastcgi_temp_path {home}/c;
  uwsgi_temp_path {home}/d; scgi_temp_path {home}/e;
  limit_req_zone $server_name zone=z:1m rate=2r/s;
  upstream u {{ server {upstream}; keepalive 8; }}
  proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffering off;
  keepalive_requests 3; keepalive_timeout 1s;
  server {{
    server_name localhost; listen 127.0.0.1:{port}; listen 127.0.0.1:{tls} ssl;
    ssl_certificate {home}/s.pem; ssl_certificate_key {home}/s.key;
    location /off/ {{ proxy_pass http://u/; }}
    location /on/ {{ proxy_buffering on; proxy_pass http://u/; }}
    location /lim/v1/chat/ {{
      limit_req zone=z burst=1 nodelay; limit_req_status 429; proxy_pass http://u/v1/chat/;
    }}
    location /lim/ {{ proxy_pass http://u/; }}
    location /basic/ {{ auth_basic x; auth_basic_user_file {home}/htpasswd; proxy_pass http://u/; }}
    location /gz/ {{
      gzip on; gzip_types text/event-stream; gzip_min_length 1; gzip_proxied any;
      proxy_buffering on; proxy_pass http://u/;
    }}
  }}
}}
"""
HAPROXY = """
global
  maxconn 200
defaults
  mode http
  timeout client 30s
  timeout server 30s
  timeout connect 2s
  timeout http-keep-alive 100ms
  default_backend b
frontend defaults
  bind 127.0.0.1:{port}
frontend no-delay
  bind 127.0.0.1:{quick}
  bind 127.0.0.1:{tls} ssl crt {home}/both.pem alpn h2,http/1.1
  option http-no-delay
backend b
  server s {upstream}
"""
TINYPROXY = """
Port {port}
Listen 127.0.0.1
Timeout 60
Allow 127.0.0.1
LogLevel Error
MaxClients 50
"""
LITELLM = """
model_list:
  - model_name: tiny
    litellm_params: {{model: hosted_vllm/tiny, api_base: "http://{upstream}/v1", api_key: none}}
general_settings: {{master_key: {key}}}
litellm_settings: {{telemetry: false, num_retries: 0}}
"""


@pytest.fixture(scope="module")
def url(vllm: Callable[..., Any]) -> Iterator[str]:
    with vllm() as found:
        yield found


@dataclass(frozen=True)
class Gateway:
    """Where one answers."""

    port: int
    tls: int = 0
    quick: int = 0
    ca: str = ""


def certified(home: Path) -> str:
    """The file of an authority of one's own, which has signed the server's certificate in this folder."""
    authority = trustme.CA()
    made = authority.issue_cert("localhost", "127.0.0.1")
    made.private_key_pem.write_to_path(home / "s.key")
    for blob in made.cert_chain_pems:
        blob.write_to_path(home / "s.pem", append=True)
    made.private_key_and_cert_chain_pem.write_to_path(home / "both.pem")
    authority.cert_pem.write_to_path(home / "ca.pem")
    return str(home / "ca.pem")


@pytest.fixture(scope="module")
def nginx(url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    home = tmp_path_factory.mktemp("nginx")
    gateway = Gateway(free_port(), free_port(), ca=certified(home))
    user, _, password = PASSWORD.partition(":")
    hashed = subprocess.run(
        ["openssl", "passwd", "-apr1", password], capture_output=True, text=True, check=True
    )
    (home / "htpasswd").write_text(f"{user}:{hashed.stdout}")
    text = NGINX.format(home=home, upstream=urlsplit(url).netloc, port=gateway.port, tls=gateway.tls)
    (home / "nginx.conf").write_text(text)
    command = ["nginx", "-p", str(home), "-e", "stderr", "-c", str(home / "nginx.conf")]
    with program(command, [gateway.port], home / "said.txt"):
        yield gateway


@pytest.fixture(scope="module")
def haproxy(url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    home = tmp_path_factory.mktemp("haproxy")
    gateway = Gateway(free_port(), free_port(), free_port(), certified(home))
    text = HAPROXY.format(
        home=home, upstream=urlsplit(url).netloc, port=gateway.port, tls=gateway.tls, quick=gateway.quick
    )
    (home / "haproxy.cfg").write_text(text)
    with program(["haproxy", "-f", str(home / "haproxy.cfg")], [gateway.port], home / "said.txt"):
        yield gateway


def test_nginx_that_passes_on_what_comes_changes_nothing(play: Play, url: str, nginx: Gateway) -> None:
    """It closes connections after three requests: the next one is opened anew, and no turn is lost."""
    played = play(f"http://127.0.0.1:{nginx.port}/off", behind=url)
    played.is_whole()
    played.counts_as_the_server()
    played.waits_as_the_server()
    assert not {"buffered", "failed", "rate_limited"} & played.findings.keys()


def test_nginx_that_may_buffer_passes_a_slow_stream_on_and_is_not_named(
    play: Play, url: str, nginx: Gateway
) -> None:
    """nginx 1.22 sends on what it has whenever the server pauses."""
    played = play(f"http://127.0.0.1:{nginx.port}/on", behind=url)
    played.is_whole()
    played.counts_as_the_server()
    played.waits_as_the_server()
    assert "buffered" not in played.findings


def test_nginx_that_compresses_what_it_buffers_is_named_and_tpot_withheld(
    play: Play, url: str, nginx: Gateway
) -> None:
    options = ("--header", "Accept-Encoding:gzip", "--slo", "tpot_ms=1000")
    played = play(f"http://127.0.0.1:{nginx.port}/gz", *options, behind=url)
    played.is_whole()
    played.counts_as_the_server()
    assert {"buffered", "compressed"} <= played.findings.keys()
    assert played.summary["cells"][0]["tpot_ms"]["n"] == 0
    assert played.exit_code == 1, "a limit on what is not known is not met"


def test_nginx_with_a_certificate_of_one_s_own_authority(play: Play, url: str, nginx: Gateway) -> None:
    played = play(f"https://localhost:{nginx.tls}/off", "--ca", nginx.ca, behind=url)
    played.is_whole()
    played.counts_as_the_server()


def test_nginx_that_limits_the_rate_is_named(play: Play, url: str, nginx: Gateway) -> None:
    played = play(f"http://127.0.0.1:{nginx.port}/lim", behind=url)
    assert {turn.outcome for turn in played.turns} == {"ok", "http_429"}
    assert played.output_tokens == played.grown["vllm:generation_tokens_total"]
    assert "429" in played.findings["rate_limited"]
    assert "failed" in played.findings


def test_nginx_that_wants_a_password_gets_it(play: Play, url: str, nginx: Gateway) -> None:
    played = play(f"http://{PASSWORD}@127.0.0.1:{nginx.port}/basic", behind=url)
    played.is_whole()
    played.counts_as_the_server()
    assert PASSWORD.partition(":")[2] not in played.said


def test_haproxy_with_its_defaults_is_named(play: Play, url: str, haproxy: Gateway) -> None:
    played = play(f"http://127.0.0.1:{haproxy.port}", behind=url)
    played.is_whole()
    played.counts_as_the_server()
    assert "buffered" in played.findings
    assert "coalesced" not in played.findings


@pytest.mark.parametrize("tls", [False, True])
def test_haproxy_without_delay_changes_nothing(play: Play, url: str, haproxy: Gateway, tls: bool) -> None:
    """It ends idle connections after 0.1 s."""
    where = f"https://localhost:{haproxy.tls}" if tls else f"http://127.0.0.1:{haproxy.quick}"
    played = play(where, *(["--ca", haproxy.ca] if tls else []), behind=url)
    played.is_whole()
    played.counts_as_the_server()
    played.waits_as_the_server()
    assert "buffered" not in played.findings


def test_an_http_proxy_is_used_where_the_environment_says_so(
    play: Play, url: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    home, port = tmp_path_factory.mktemp("tinyproxy"), free_port()
    (home / "tinyproxy.conf").write_text(TINYPROXY.format(port=port))
    proxied = {"http_proxy": f"http://127.0.0.1:{port}", "no_proxy": "", "NO_PROXY": ""}
    with program(["tinyproxy", "-d", "-c", str(home / "tinyproxy.conf")], [port], home / "said.txt"):
        played = play(url, "--trust-env", behind=url, env=proxied)
    played.is_whole()
    played.counts_as_the_server()


@pytest.fixture(scope="module")
def litellm(url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    home, port = tmp_path_factory.mktemp("litellm"), free_port()
    (home / "config.yaml").write_text(LITELLM.format(upstream=urlsplit(url).netloc, key=KEY))
    command = [str(python_of(".venv-litellm").with_name("litellm")), "--config", str(home / "config.yaml")]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    with program(command, [port], home / "said.txt", cwd=home):
        yield f"http://127.0.0.1:{port}"


@pytest.mark.parametrize("dialect", ["chat", "messages"])
def test_litellm_passes_the_plan_on(play: Play, url: str, litellm: str, dialect: str) -> None:
    played = play(litellm, "--dialect", dialect, behind=url, env={"OPENAI_API_KEY": KEY})
    assert {turn.outcome for turn in played.turns} == {"ok"}, played.said
    assert len(played.turns) == PLAN_TURNS
    assert played.output_tokens == played.grown["vllm:generation_tokens_total"]
    assert KEY not in played.said

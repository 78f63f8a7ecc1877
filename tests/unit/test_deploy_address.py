"""Names and hosts, by Ollama's rules."""

import pytest

from forge_cli.core.errors import UsageError
from forge_cli.deploy.address import check_name, is_loopback, server_url


@pytest.mark.parametrize(
    "name",
    [
        "demo",
        "demo:latest",
        "Demo_1.5-x:20261123-ab12cd",
        "me/demo",
        "_x",
        "registry.example:5000/me/demo:v1",
        "a" * 80,
        "demo:clouds",
    ],
)
def test_good_name(name: str) -> None:
    assert check_name(name) == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        ":v1",
        "demo:",
        "-demo",
        ".demo",
        "de mo",
        "de\nmo",
        "démo",
        "demo\n",
        "a:b:c",
        "m.e/demo",
        "/demo",
        "me//demo",
        "a/b/c/d",
        "a" * 81,
        "demo:" + "t" * 81,
        "demo:cloud",
        "demo:7b-cloud",
        "demo:Local",
        "../demo",
        "demo@sha256",
    ],
)
def test_bad_name(name: str) -> None:
    with pytest.raises(UsageError, match="--name"):
        check_name(name)


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("", "http://127.0.0.1:11434"),
        ("http://127.0.0.1:11434", "http://127.0.0.1:11434"),
        ("box", "http://box:11434"),
        (":1234", "http://127.0.0.1:1234"),
        ("http://box", "http://box:80"),
        ("https://box/ollama/", "https://box:443/ollama"),
        ("[::1]:1234", "http://[::1]:1234"),
    ],
)
def test_host_becomes_a_url(host: str, url: str) -> None:
    assert server_url(host) == url


@pytest.mark.parametrize(
    "host", ["ftp://box", "box:port", "box:99999", "http://[::1", "a b", "box?x=1", "bö"]
)
def test_bad_host(host: str) -> None:
    with pytest.raises(UsageError, match="--host"):
        server_url(host)


def test_loopback_is_known_by_name_and_number() -> None:
    for url in ("http://localhost:1", "http://127.0.0.5:1", "http://[::1]:1"):
        assert is_loopback(url)
    assert not is_loopback("http://192.168.0.2:1") and not is_loopback("http://box:1")

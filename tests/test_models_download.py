"""Published weights: fetched once, checked, cached, and refused in one line; all against a server on loopback."""

import contextlib
import dataclasses
import functools
import hashlib
import io
import os
import socket
import time

import pytest
import torch

from squeezenet.architectures import named_spec
from squeezenet.errors import DownloadError, SpecError, WeightsError
from squeezenet.labels import imagenet_labels
from squeezenet.models import WEIGHTS, SqueezeNet, create_model, download, load_model, squeezenet1_0, squeezenet1_1
from squeezenet.models.download import cache_folder, fetch_weights
from squeezenet.preprocess import TORCHVISION_PREPROCESSING
from squeezenet.zoo import PUBLISHED_NAMES
from weights_server import Handler, serve_weights

CONTENT = bytes(range(256)) * 1000
NAME = f"thing-{hashlib.sha256(CONTENT).hexdigest()[:8]}.pth"


@pytest.fixture
def server(tmp_path, monkeypatch):
    with serve_weights({NAME: CONTENT}, tmp_path / "cache", monkeypatch) as server:
        yield server


def check_refused(message):
    """One line that says what to do, and nothing left in the cache."""
    with pytest.raises(DownloadError, match=message) as caught:
        fetch_weights(NAME, progress=False)
    assert str(caught.value).isprintable()
    assert f"check the network, or put the file at {cache_folder() / NAME} yourself" in str(caught.value)
    assert list(cache_folder().glob("*")) == []


def test_second_call_needs_no_network(server):
    path = fetch_weights(NAME, progress=False)
    assert path == cache_folder() / NAME
    assert path.read_bytes() == CONTENT
    server.files.clear()
    assert fetch_weights(NAME, progress=False) == path
    assert server.requests == [f"/models/{NAME}"]
    assert [entry.name for entry in cache_folder().iterdir()] == [NAME]


def test_address_can_be_given(server, monkeypatch):
    monkeypatch.setenv("SQUEEZENET_WEIGHTS_URL", "http://127.0.0.1:9/elsewhere")
    assert fetch_weights(NAME, base_url=server.url + "/", progress=False).read_bytes() == CONTENT


def test_damaged_cache_is_fetched_again(server):
    path = fetch_weights(NAME, progress=False)
    path.write_bytes(CONTENT[:-1] + b"x")
    assert fetch_weights(NAME, progress=False).read_bytes() == CONTENT
    assert len(server.requests) == 2


def test_length_need_not_be_announced(server):
    server.answer = lambda handler, content: handler.send_part(content, None)
    assert fetch_weights(NAME, progress=False).read_bytes() == CONTENT


def test_corrupt_content_is_refused(server):
    server.files[NAME] = CONTENT[:-1] + b"x"
    check_refused(rf"expected a SHA-256 that starts with {NAME[6:14]}, got [0-9a-f]{{8}}\)")


def test_truncated_content_is_refused_and_the_next_call_starts_again(server):
    server.answer = lambda handler, content: handler.send_part(content[:100_000], len(content))
    check_refused("expected 256000 bytes, got 100000|IncompleteRead")
    server.answer = Handler.send_whole
    assert fetch_weights(NAME, progress=False).read_bytes() == CONTENT


def test_missing_file_is_refused(server):
    server.files.clear()
    check_refused(f"could not be fetched from {server.url}/{NAME} .HTTP 404 Not Found.:")


@pytest.mark.parametrize(
    "place", ["ftp://127.0.0.1/a", "https://127.0.0.1/a", "http://192.0.2.1/a", "file:///etc/passwd"]
)
def test_redirects_out_of_the_scheme_or_the_machine_are_refused(server, place):
    def redirect(handler, content):
        handler.send_response(302)
        handler.send_header("Location", place)
        handler.end_headers()

    server.answer = redirect
    check_refused(r"HTTP 302|expected an https:// address, or an http:// one of this machine")
    assert len(server.requests) == 1


def test_redirects_within_the_machine_are_followed(server):
    def redirect(handler, content):
        server.answer = Handler.send_whole
        handler.send_response(301)
        handler.send_header("Location", f"{server.url}/{NAME}")
        handler.end_headers()

    server.answer = redirect
    assert fetch_weights(NAME, progress=False).read_bytes() == CONTENT


@pytest.mark.parametrize(
    "url", ["http://example.com/models", "http://127.0.0.1.example.com", "HTTP://10.0.0.1", "http://[::2]/"]
)
def test_plain_text_from_elsewhere_is_refused(server, url):
    with pytest.raises(DownloadError, match=r"\(expected an https:// address, or an http:// one of this machine\)"):
        fetch_weights(NAME, base_url=url, progress=False)


def test_refused_connection(server, monkeypatch):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        monkeypatch.setenv("SQUEEZENET_WEIGHTS_URL", f"http://127.0.0.1:{unused.getsockname()[1]}")
        check_refused("Connection refused")


@pytest.mark.parametrize("length", [None, 1 << 40])
def test_more_bytes_than_the_limit_are_refused(server, monkeypatch, length):
    monkeypatch.setattr(download, "MAX_DOWNLOAD_BYTES", 70_000)
    server.answer = lambda handler, content: handler.send_part(content, length)
    check_refused("expected at most 70000 bytes")


def test_silent_server_is_given_up(server, monkeypatch):
    monkeypatch.setattr(download, "STALL_TIMEOUT_S", 0.2)

    def stall(handler, content):
        handler.send_part(content[:10], len(content))
        server.is_over.wait(10)

    server.answer = stall
    check_refused("timed out")


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("beginning", "drop"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 256000\r\n\r\n", b"x"),
        (b"HTTP/1.1 200 OK\r\nX-Long: ", b"x"),
        (b"HTTP/1.1 200 OK\r\n", b"X: y\r\n"),
        (CHUNKED, b"0"),
        (CHUNKED + b"0\r\n", b"X: y\r\n"),
    ],
    ids=["body", "header", "headers", "chunk size", "trailer"],
)
def test_dripping_server_is_given_up(server, monkeypatch, beginning, drop):
    monkeypatch.setattr(download, "TOTAL_TIMEOUT_S", 0.4)

    def drip(handler, content):
        with contextlib.suppress(OSError):
            handler.wfile.write(beginning)
            while not server.is_over.wait(0.02):
                handler.wfile.write(drop)

    server.answer = drip
    start_s = time.monotonic()
    check_refused("not complete after 0 s")
    assert time.monotonic() - start_s < 5


def test_silence_at_the_deadline_is_not_waited_for(server, monkeypatch):
    monkeypatch.setattr(download, "TOTAL_TIMEOUT_S", 0.3)
    server.answer = lambda handler, content: server.is_over.wait(10)
    start_s = time.monotonic()
    check_refused("not complete after 0 s")
    assert time.monotonic() - start_s < 5


def test_a_link_in_the_cache_is_replaced_and_what_it_leads_to_stays(server, tmp_path):
    (tmp_path / "precious").write_text("mine")
    cache_folder().mkdir(parents=True)
    (cache_folder() / NAME).symlink_to(tmp_path / "precious")
    path = fetch_weights(NAME, progress=False)
    assert (tmp_path / "precious").read_text() == "mine"
    assert (path.read_bytes(), path.is_symlink()) == (CONTENT, False)


def test_what_killed_downloads_left_is_removed(server):
    cache_folder().mkdir(parents=True)
    old, new = (cache_folder() / f".{digit * 16}.tmp" for digit in "ab")
    for path in (old, new):
        path.write_bytes(b"part")
    os.utime(old, (time.time() - 7200,) * 2)
    fetch_weights(NAME, progress=False)
    assert sorted(path.name for path in cache_folder().iterdir()) == [new.name, NAME]


def test_answer_that_is_no_http_is_refused(server):
    server.answer = lambda handler, content: handler.wfile.write(b"\x1b[2J nonsense\r\n\r\n")
    check_refused("nonsense")


@pytest.mark.parametrize(
    "url", ["file:///etc", "ftp://127.0.0.1", "/", "nonsense", "http://", "http://[", "https://a b"]
)
def test_address_that_is_none_is_refused(server, url):
    with pytest.raises(DownloadError, match=f"^{NAME} could not be fetched from"):
        fetch_weights(NAME, base_url=url, progress=False)


def test_cache_that_cannot_be_written_is_refused(server, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SQUEEZENET_HOME", str(tmp_path / "file" / "cache"))
    with pytest.raises(DownloadError, match="Not a directory"):
        fetch_weights(NAME, progress=False)


def test_cache_is_in_the_home_folder_by_default(monkeypatch, tmp_path):
    monkeypatch.delenv("SQUEEZENET_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "squeezenet"


def test_progress_is_plain_lines_where_there_is_no_terminal(server, capsys):
    fetch_weights(NAME)
    out, err = capsys.readouterr()
    assert (out, err) == ("", f"downloading {NAME} (0.3 MB)\n")


def test_progress_is_a_bar_on_a_terminal(server, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    fetch_weights(NAME)
    assert "256/256" in terminal.getvalue()
    assert "━" in terminal.getvalue()


@pytest.fixture
def published(server, monkeypatch):
    """A network in the place of torchvision's published 1.1."""
    torch.manual_seed(3)
    model = SqueezeNet(named_spec("squeezenet1_1"))
    buffer = io.BytesIO()
    torch.save(model.state_dict(), buffer)
    digest = hashlib.sha256(buffer.getvalue()).hexdigest()
    name = f"squeezenet1_1-{digest[:8]}.pth"
    server.files[name] = buffer.getvalue()
    weights = dataclasses.replace(WEIGHTS["squeezenet1_1"]["IMAGENET1K_V1"], file=name, sha256=digest)
    monkeypatch.setitem(WEIGHTS["squeezenet1_1"], "IMAGENET1K_V1", weights)
    return model


def test_pretrained_network_has_the_published_weights_labels_and_preprocessing(published, server):
    for model in (squeezenet1_1(pretrained=True, progress=False), load_model("squeezenet1_1")):
        assert torch.equal(model.head.weight, published.head.weight)
        assert torch.equal(model.features[0].weight, published.features[0].weight)
        assert model.spec == named_spec("squeezenet1_1")
        assert model.labels.names[1] == "goldfish, Carassius auratus"
        assert model.preprocessing == TORCHVISION_PREPROCESSING
    assert len(server.requests) == 1


def test_pretrained_network_gets_a_new_head_for_other_classes(published):
    model = create_model("squeezenet1_1", pretrained=True, num_classes=10, input_size=112, dropout=0.1, progress=False)
    assert torch.equal(model.features[0].weight, published.features[0].weight)
    assert (model.spec.num_classes, model.spec.head_relu, model.labels) == (10, False, None)
    assert (model.preprocessing.crop_size, model.preprocessing.resize_size) == (112, 128)
    assert model.dropout == 0.1


@pytest.mark.parametrize("options", [{"bypass": "complex"}, {"input_size": 16}, {"batch_norm": True}])
def test_options_that_published_weights_do_not_fit_are_refused(published, options):
    with pytest.raises(WeightsError, match="expected the tensors of squeezenet1_1|expected only the tensors of"):
        squeezenet1_1(pretrained=True, progress=False, **options)


def test_names_without_published_weights_are_refused_before_any_download(server):
    with pytest.raises(WeightsError, match="expected one of squeezenet1_0, squeezenet1_1 for published weights"):
        create_model("squeezenet1_0_complex_bypass", pretrained=True)
    with pytest.raises(SpecError, match="got 'resnet18'"):
        create_model("resnet18", pretrained=True)
    assert server.requests == []


@pytest.mark.parametrize(
    "arguments",
    [
        ((), {"pretrained": True, "progress": False}),
        ((True, False), {}),
        ((True,), {"progress": False}),
        ((), {"weights": "IMAGENET1K_V1", "progress": False}),
        ((), {"weights": "DEFAULT", "progress": False}),
        ((), {"weights": "DEFAULT", "pretrained": True, "progress": False}),
    ],
    ids=str,
)
def test_every_way_to_ask_for_published_weights_gives_them(published, arguments, capsys):
    positional, named = arguments
    assert torch.equal(squeezenet1_1(*positional, **named).head.weight, published.head.weight)
    assert capsys.readouterr().err == ""


def test_no_weights_are_fetched_where_none_are_asked_for(server):
    for model in (squeezenet1_1(), squeezenet1_1(False, True), squeezenet1_1(weights=None), squeezenet1_0(False)):
        assert (model.labels, model.preprocessing, model.provenance) == (None, None, {})
        assert model.spec.num_classes == 1000
    assert server.requests == []


@pytest.mark.parametrize("weights", ["IMAGENET1K_V2", "imagenet", "", True, 1])
def test_unknown_weights_are_refused_with_the_known_ones(server, weights):
    message = "expected one of IMAGENET1K_V1, DEFAULT or None for `weights` of squeezenet1_1, got"
    with pytest.raises(WeightsError, match=f"^{message} {weights!r}$"):
        squeezenet1_1(weights=weights)
    assert server.requests == []


@pytest.mark.parametrize("build", [squeezenet1_1, functools.partial(create_model, "squeezenet1_1")])
def test_unknown_options_are_refused_with_the_known_ones(build):
    with pytest.raises(SpecError, match=r"^expected only the options base_e, .*bypass, .*got in_chans \(images are"):
        build(in_chans=1)
    with pytest.raises(SpecError, match="got drop_rate, global_pool"):
        build(global_pool="avg", drop_rate=0.2)


def test_published_weights_are_those_of_torchvision():
    facts = {
        name: [(key, w.file, w.top1, w.top5, w.parameters) for key, w in weights.items()]
        for name, weights in WEIGHTS.items()
    }
    assert facts == {
        "squeezenet1_0": [("IMAGENET1K_V1", "squeezenet1_0-b66bff10.pth", 58.092, 80.420, 1_248_424)],
        "squeezenet1_1": [("IMAGENET1K_V1", "squeezenet1_1-b8a52dc0.pth", 58.178, 80.624, 1_235_496)],
    }
    assert tuple(WEIGHTS) == PUBLISHED_NAMES
    for name, weights in WEIGHTS.items():
        for published in weights.values():
            assert f"-{published.sha256[:8]}." in published.file
            assert published.labels == imagenet_labels()
            assert published.preprocessing == TORCHVISION_PREPROCESSING
            assert published.parameters == sum(p.numel() for p in create_model(name).parameters())
    assert len(WEIGHTS["squeezenet1_1"]["IMAGENET1K_V1"].sha256) == 64  # nobody publishes 1.0's
    assert download.WEIGHTS_URL == "https://download.pytorch.org/models"


def test_content_that_matches_only_the_first_digits_is_refused(server):
    digest = hashlib.sha256(CONTENT).hexdigest()
    other = digest[:8] + "0" * 56
    with pytest.raises(DownloadError, match=f"expected a SHA-256 that starts with {other}, got {digest}"):
        fetch_weights(NAME, sha256=other, progress=False)
    path = fetch_weights(NAME, sha256=digest, progress=False)
    # A file in the cache from before is checked in the same way.
    with pytest.raises(DownloadError, match="got"):
        fetch_weights(NAME, sha256=other, progress=False)
    assert path.read_bytes() == CONTENT

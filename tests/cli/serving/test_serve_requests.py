"""Requests that the page itself would not send."""

import json
import socket
import urllib.error
import urllib.request
from pathlib import Path

import cv2
import numpy as np
import pytest

import negvision.cli.serving


def ask(url: str, data: bytes | None = None, headers: dict | None = None) -> tuple[int, str, dict]:
    """Status, text and headers of an answer."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        request = urllib.request.Request(url, data, headers or {})
        with opener.open(request, timeout=600) as answer:
            return answer.status, answer.read().decode(errors="replace"), dict(answer.headers)
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode(errors="replace"), dict(error.headers)


def form(data: bytes) -> tuple[bytes, dict]:
    """Body and headers of an upload."""
    head = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n'
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    return head + data + b"\r\n--x--\r\n", headers


def upload(url: str, path: Path) -> dict:
    """Upload a file; its name as a request gives it."""
    status, text, _ = ask(url + "gradio_api/upload", *form(path.read_bytes()))
    assert status == 200, text
    return {"path": json.loads(text)[0], "meta": {"_type": "gradio.FileData"}}


def predict(url: str, *images: object, values: tuple = (0.3, -2.5, True)) -> dict:
    """Call the function behind the upload as the page does; the message that it ended with."""
    _, text, _ = ask(url + "config")
    call, *_ = [
        dependency
        for dependency in json.loads(text)["dependencies"]
        if any(target[1] == "change" for target in dependency["targets"])
    ]
    session = "a1b2c3"
    body = {"fn_index": call["id"], "session_hash": session, "data": [*images, *values]}
    headers = {"Content-Type": "application/json"}
    status, text, _ = ask(url + "gradio_api/queue/join", json.dumps(body).encode(), headers)
    assert status == 200, text
    _, stream, _ = ask(url + f"gradio_api/queue/data?session_hash={session}")
    messages = [json.loads(line[6:]) for line in stream.splitlines() if line.startswith("data: ")]
    [done] = [message for message in messages if message["msg"] == "process_completed"]
    return done


def test_answers_have_the_policy(detector):
    status, text, headers = ask(detector.url)
    assert status == 200 and "detector.onnx" in text
    assert headers["content-security-policy"].startswith("default-src 'self';")
    assert headers["x-content-type-options"] == "nosniff"
    # Fonts of the theme are served from this host.
    assert "googleapis" not in text + ask(detector.url + "theme.css")[1]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", ["PRIVATE", "http://negvision.invalid/a.png", "../a.png", ""])
def test_request_cannot_name_a_file_or_url(detector, tmp_path, path, stream):
    if path == "PRIVATE":
        path = str(tmp_path / "private.png")
        cv2.imwrite(path, np.zeros((120, 160, 3), np.uint8))
    meta = {"_type": "gradio.FileData"}
    done = predict(detector.url, {"path": path, "is_stream": stream, "meta": meta})
    assert done["success"] is False
    assert "boxes" not in str(done)
    assert "negvision.invalid" not in detector.asked.read_text()


def test_request_can_name_an_uploaded_file(detector, tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((120, 160, 3), np.uint8))
    done = predict(detector.url, upload(detector.url, tmp_path / "a.png"))
    assert "3 of 5 boxes" in str(done).replace("\\", "")


def test_photographs_of_faces_are_aligned_and_compared(shared_data, servers, tmp_path):
    url = servers["photographs"].url
    photo = next((shared_data / "lfw112" / "test_uncropped").glob("*/*_0001.jpg"))
    cv2.imwrite(str(tmp_path / "none.png"), np.zeros((200, 200, 3), np.uint8))
    face, none = upload(url, photo), upload(url, tmp_path / "none.png")
    said = str(predict(url, face, face, values=())).replace("\\", "")
    assert "'data': [1.0" in said and "The same person: 0.5000, which 0.01 of" in said
    assert "no face was found" in str(predict(url, face, none, values=())).replace("\\", "")


def test_files_cannot_be_read_through_the_page(detector):
    for path in ("/etc/hostname", str(Path(negvision.cli.serving.__file__))):
        assert ask(detector.url + f"gradio_api/file={path}")[0] in (403, 404)


@pytest.mark.parametrize(("size", "expected"), [(1000, 200), (270_000, 413)])
def test_large_upload_is_refused(detector, size, expected):
    status, text, _ = ask(detector.url + "gradio_api/upload", *form(bytes(size)))
    assert status == expected, text


def test_large_request_without_a_length_is_cut_off(detector):
    host, port = detector.url.removeprefix("http://").rstrip("/").split(":")
    sent = 0
    with socket.create_connection((host, int(port)), timeout=600) as line:
        line.sendall(
            f"POST /gradio_api/queue/join HTTP/1.1\r\nHost: {host}\r\n"
            "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
        )
        try:
            for _ in range(64):
                line.sendall(b"10000\r\n" + b" " * 0x10000 + b"\r\n")
                sent += 0x10000
            answer = line.recv(100)
        except OSError:  # the server hung up
            answer = b""
    assert b" 200 " not in answer
    assert ask(detector.url)[0] == 200


def test_other_host_names_are_not_served(detector):
    port = detector.url.rstrip("/").rpartition(":")[2]
    for host, status in (("evil.example", 421), ("localhost", 200), ("[::1]", 200)):
        assert ask(detector.url, headers={"Host": f"{host}:{port}"})[0] == status
    _, said, headers = ask(detector.url, headers={"Host": "evil.example"})
    assert "under the name 'evil.example'" in said and "--allowed-host evil.example" in said
    assert headers["content-type"].startswith("text/plain")
    assert "<b>" not in ask(detector.url, headers={"Host": "<b>x"})[1]


def test_page_below_a_path_of_a_proxy(servers):
    """The proxy removes the path from requests, or leaves it."""
    served = servers["proxied"]
    assert served.url.endswith("/demo/")
    own = served.url.removesuffix("demo/")
    seen = {"Host": "demo.example", "X-Forwarded-Proto": "https"}
    for url in (served.url, own):
        status, text, _ = ask(url + "config", headers=seen)
        assert status == 200 and json.loads(text)["root"] == "https://demo.example/demo"
        body, headers = form(cv2.imencode(".png", np.zeros((12, 16, 3), np.uint8))[1].tobytes())
        assert ask(url + "gradio_api/upload", body, {**headers, **seen})[0] == 200
        assert ask(url, headers={"Host": "other.example"})[0] == 421
    assert ask(own + "demonstration")[0] == 404


def test_serving_everyone_prints_a_warning(servers):
    served = servers["everywhere"]
    assert served.lines[0].startswith("warning: --host 0.0.0.0 lets everyone who")
    port = served.url.rstrip("/").rpartition(":")[2]
    here = f"http://127.0.0.1:{port}/"
    # Any name of the machine is served.
    assert ask(here, headers={"Host": "gpu7.example"})[0] == 200
    body, headers = form(b"private")
    assert ask(here + "gradio_api/upload", body, headers)[0] == 200
    kept = [path for path in served.temporary.rglob("*") if path.is_file()]
    assert [path.read_bytes() for path in kept].count(b"private") == 1
    assert served.stop() == 0
    assert list(served.temporary.iterdir()) == []
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", int(port)), timeout=5)

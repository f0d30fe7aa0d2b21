"""A stand-in for the hub: the parts of its HTTP interface that an upload asks for, on this machine.

Repositories, branches, files and LFS objects are kept in memory. Written after what the hub's client sends and reads.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN = "hf_standin_token"

LFS_ENDINGS = (".safetensors", ".onnx", ".bin")


class Hub:
    """What the stand-in knows and has been sent.

    Attributes
    ----------
    url : str
        Its address, for HF_ENDPOINT.
    repositories : dict
        By name: "private", "branches" (files by name, of each branch) and "commits" (their messages).
    requests : list of (method, path)
        In order.
    fail : dict
        Status by a part of a path: requests to it get this answer instead.
    """

    def __init__(self) -> None:
        self.repositories: dict[str, dict[str, Any]] = {}
        self.objects: dict[str, bytes] = {}
        self.requests: list[tuple[str, str]] = []
        self.fail: dict[str, int] = {}
        self.user: dict[str, Any] = {"name": "anna", "type": "user", "orgs": [{"name": "acme"}]}
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: Any) -> None:
                pass

            def do_GET(self) -> None:
                self._answer()

            do_POST = do_PUT = do_HEAD = do_GET

            def _answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                hub.requests.append((self.command, self.path))
                status, told = hub.answer(self.command, self.path, dict(self.headers), body)
                data = json.dumps(told).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                if status >= 400:
                    self.send_header("X-Error-Message", str(told.get("error", "")))
                self.end_headers()
                self.wfile.write(data)

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def add(self, name: str, *, private: bool = False) -> None:
        """Make an empty repository."""
        self.repositories[name] = {"private": private, "branches": {"main": {}}, "commits": []}

    def answer(self, method: str, path: str, headers: dict[str, str], body: bytes) -> tuple[int, Any]:
        """Status and JSON of a request."""
        for part, status in self.fail.items():
            if part in path:
                return status, {"error": "so it is told"}
        path = path.partition("?")[0]
        if method == "PUT" and path.startswith("/objects/"):
            self.objects[path.rpartition("/")[2]] = body
            return 200, {}
        if {name.lower(): value for name, value in headers.items()}.get("authorization") != f"Bearer {TOKEN}":
            return 401, {"error": "Invalid credentials in Authorization header"}
        if path == "/api/whoami-v2":
            return 200, self.user
        told = json.loads(body) if body and b"\n{" not in body else {}
        if path == "/api/repos/create":
            return self._create(told)
        if path == "/api/validate-yaml":
            return self._validate(told["content"])
        if found := re.fullmatch(r"/([\w.-]+/[\w.-]+)\.git/info/lfs/objects/batch", path):
            return self._batch(found[1], told)
        found = re.fullmatch(r"/api/models/([\w.-]+/[\w.-]+)(?:/(preupload|commit|branch|revision)/(.+))?", path)
        if not found or found[1] not in self.repositories:
            return 404, {"error": "Repository not found"}
        repository, branch = self.repositories[found[1]], found[3]
        if found[2] is None:
            return 200, {"id": found[1], "private": repository["private"], "tags": [], "siblings": []}
        if found[2] == "branch":
            if branch in repository["branches"]:
                return 409, {"error": "Reference already exists"}
            repository["branches"][branch] = dict(repository["branches"]["main"])
            return 200, {}
        if branch not in repository["branches"]:
            return 404, {"error": "Invalid rev id"}
        if found[2] == "preupload":
            return 200, {
                "files": [
                    {
                        "path": file["path"],
                        "uploadMode": "lfs" if file["path"].endswith(LFS_ENDINGS) else "regular",
                        "shouldIgnore": False,
                    }
                    for file in told["files"]
                ]
            }
        return self._commit(found[1], repository, branch, body)

    def _create(self, told: dict[str, Any]) -> tuple[int, Any]:
        owner = told.get("organization") or self.user["name"]
        if owner not in (self.user["name"], *(one["name"] for one in self.user["orgs"])):
            return 403, {"error": f"You don't have the rights to create a model under the namespace {owner!r}"}
        name = f"{owner}/{told['name']}"
        if name in self.repositories:
            return 409, {"error": "You already created this model repo", "url": f"{self.url}/{name}"}
        self.add(name, private=told.get("visibility") == "private" or bool(told.get("private")))
        return 200, {"url": f"{self.url}/{name}", "name": name}

    def _validate(self, content: str) -> tuple[int, Any]:
        import yaml

        block = re.match(r"---\n(.*?)\n---\n", content, re.DOTALL)
        try:
            found = yaml.safe_load(block[1]) if block else {}
        except yaml.YAMLError as error:
            return 400, {"errors": [{"message": str(error)}], "warnings": []}
        if not isinstance(found, dict):
            return 400, {"errors": [{"message": "metadata must be a mapping"}], "warnings": []}
        return 200, {"errors": [], "warnings": []}

    def _batch(self, name: str, told: dict[str, Any]) -> tuple[int, Any]:
        if name not in self.repositories:
            return 404, {"error": "Repository not found"}
        objects = [
            {**one, **({} if one["oid"] in self.objects else {"actions": {"upload": self._place(one["oid"])}})}
            for one in told["objects"]
        ]
        return 200, {"transfer": "basic", "objects": objects}

    def _place(self, oid: str) -> dict[str, str]:
        return {"href": f"{self.url}/objects/{oid}"}

    def _commit(self, name: str, repository: dict[str, Any], branch: str, body: bytes) -> tuple[int, Any]:
        header, *operations = [json.loads(line) for line in body.splitlines()]
        files = dict(repository["branches"][branch])
        for operation in operations:
            value = operation["value"]
            if operation["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif operation["key"] == "lfsFile":
                content = self.objects.get(value["oid"])
                if content is None or hashlib.sha256(content).hexdigest() != value["oid"]:
                    return 400, {"error": f"LFS object {value['oid']} was never uploaded"}
                files[value["path"]] = content
            else:
                return 400, {"error": f"unknown operation {operation['key']}"}
        repository["branches"][branch] = files
        repository["commits"].append(header["value"]["summary"])
        oid = hashlib.sha1(body).hexdigest()
        return 200, {"success": True, "commitOid": oid, "commitUrl": f"{self.url}/{name}/commit/{oid}"}

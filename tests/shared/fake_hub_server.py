"""The Hub as a server on loopback, as far as sending and fetching models needs it.

Repositories with branches, one commit at a time; files that come inside a commit and large ones
that come before it (LFS), by their SHA-256; a token that may write and one that may only read.
Every answer can be replaced by a failure. Written from what the Hub's own client asks.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import socket
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

WRITER, READER = "hf_writer", "hf_reader"  # tokens
OWNER = "me"  # whose the writer is
DROP = 0  # in the place of a status: the connection is closed without an answer
LARGE = (".safetensors", "tokenizer.json")  # names of files that do not come inside a commit


@dataclass
class Repository:
    """One model; `branches` are files by name, `commits` the name of each state."""

    private: bool = False
    branches: dict[str, dict[str, bytes]] = field(default_factory=lambda: {"main": {}})
    messages: list[str] = field(default_factory=list)

    def commit_of(self, branch: str) -> str:
        """The name of what a branch holds."""
        state = [branch, len(self.messages), sorted(self.branches[branch])]
        return hashlib.sha1(json.dumps(state).encode()).hexdigest()


class HubServer(ThreadingHTTPServer):
    """Serves `repositories`; `fails` maps "METHOD /beginning" to a status, or to DROP."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repositories: dict[str, Repository] = {}
        self.objects: dict[str, bytes] = {}  # large files that came, by SHA-256
        self.requests: list[str] = []
        self.fails: dict[str, int] = {}
        self.card_fault: str | None = None  # what is wrong with every model card
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    def sent(self) -> list[str]:
        """The large files that came, a "PUT /objects/..." each."""
        return [each for each in self.requests if each.startswith("PUT ")]


class _Handler(BaseHTTPRequestHandler):
    server: HubServer
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else each answer waits 40 ms for an acknowledgement

    def log_message(self, *_: Any) -> None:
        """Nothing."""

    def _any(self) -> None:
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = unquote(urlsplit(self.path).path)
        asked = f"{self.command} {path}"
        self.server.requests.append(asked)
        for beginning, status in self.server.fails.items():
            if asked.startswith(beginning):
                self._fail(status)
                return
        for method, pattern, answer in _ROUTES:
            match = re.fullmatch(pattern, path)
            if match and self.command in method.split():
                answer(self, *match.groups())
                return
        self._say({"error": f"no such route: {asked}"}, 501)

    do_GET = do_HEAD = do_POST = do_PUT = _any  # noqa: N815 - http.server's names

    def _fail(self, status: int) -> None:
        if status == DROP:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        self._say({"error": "as the test wants it"}, status)

    def _say(self, value: Any, status: int = 200, **headers: str) -> None:
        content = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        for name, text in headers.items():
            self.send_header(name.replace("_", "-"), text)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _token(self) -> str:
        return self.headers.get("Authorization", "").removeprefix("Bearer ")

    def _may_write(self, name: str) -> bool:
        if self._token() == WRITER and name.startswith(f"{OWNER}/"):
            return True
        known = self._token() in (WRITER, READER)
        self._say({"error": "Forbidden" if known else "Unauthorized"}, 403 if known else 401)
        return False

    def _found(self, name: str, branch: str) -> Repository | None:
        """The repository, if whoever asks may see it and it has the branch."""
        found = self.server.repositories.get(name)
        if found is None or (found.private and self._token() != WRITER):
            known = self._token() in (WRITER, READER)
            self._say({}, 404 if known else 401, X_Error_Code="RepoNotFound")
            return None
        if branch not in found.branches and branch not in map(found.commit_of, found.branches):
            self._say({}, 404, X_Error_Code="RevisionNotFound")
            return None
        return found

    def _info(self, name: str, branch: str | None) -> None:
        branch = branch or "main"
        if (found := self._found(name, branch)) is not None:
            files = _files(found, branch)
            listed = [{"rfilename": each, "size": len(files[each])} for each in sorted(files)]
            sha = found.commit_of(branch) if branch in found.branches else branch
            facts = {"id": name, "sha": sha, "private": found.private, "siblings": listed}
            self._say({**facts, "tags": [], "downloads": 0})

    def _tree(self, name: str, branch: str) -> None:
        if (found := self._found(name, branch)) is not None:
            files = _files(found, branch)
            self._say([
                {"type": "file", "path": each, "size": len(content), "oid": _git(content)}
                for each, content in files.items()
            ])  # fmt: skip

    def _create(self) -> None:
        asked = json.loads(self.body)
        name = f"{asked.get('organization') or OWNER}/{asked['name']}"
        if not self._may_write(name):
            return
        if name in self.server.repositories:
            self._say({"error": "You already created this model repo"}, 409)
            return
        private = bool(asked.get("private")) or asked.get("visibility") == "private"
        self.server.repositories[name] = Repository(private)
        self.server.repositories[name].branches["main"][".gitattributes"] = b"*.safetensors lfs\n"
        self._say({"url": f"{self.server.url}/{name}", "name": name})

    def _branch(self, name: str, branch: str) -> None:
        if self._may_write(name):
            found = self.server.repositories[name]
            found.branches[branch] = dict(found.branches["main"])
            self._say({})

    def _card(self) -> None:
        fault = self.server.card_fault
        errors = [{"message": fault}] if fault else []
        self._say({"errors": errors, "warnings": []}, 400 if fault else 200)

    def _preupload(self, name: str, branch: str) -> None:
        if self._may_write(name) and self._found(name, branch):
            modes = [
                {"path": each["path"], "shouldIgnore": False,
                 "uploadMode": "lfs" if each["path"].endswith(LARGE) else "regular"}
                for each in json.loads(self.body)["files"]
            ]  # fmt: skip
            self._say({"files": modes})

    def _batch(self, name: str) -> None:
        if not self._may_write(name):
            return
        listed = []
        for each in json.loads(self.body)["objects"]:
            if each["oid"] not in self.server.objects:
                href = f"{self.server.url}/objects/{each['oid']}"
                each["actions"] = {"upload": {"href": href}}
            listed.append(each)
        self._say({"transfer": "basic", "objects": listed})

    def _object(self, oid: str) -> None:
        assert hashlib.sha256(self.body).hexdigest() == oid
        self.server.objects[oid] = self.body
        self._say({})

    def _commit(self, name: str, branch: str) -> None:
        if not self._may_write(name):
            return
        found = self.server.repositories[name]
        lines = [json.loads(line) for line in self.body.splitlines()]
        header = lines[0]["value"]
        if header.get("parentCommit") not in (None, found.commit_of(branch)):
            self._say({"error": "the branch has moved"}, 412)
            return
        files = dict(found.branches[branch])
        for line in lines[1:]:
            kind, value = line["key"], line["value"]
            if kind == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif kind == "lfsFile":
                files[value["path"]] = self.server.objects[value["oid"]]
            else:
                del files[value["path"]]
        found.branches[branch] = files
        found.messages.append(header["summary"])
        oid = found.commit_of(branch)
        self._say({"commitOid": oid, "commitUrl": f"{self.server.url}/{name}/commit/{oid}"})

    def _file(self, name: str, branch: str, path: str) -> None:
        if (found := self._found(name, branch)) is not None:
            content = _files(found, branch)[path]
            commit = found.commit_of(branch) if branch in found.branches else branch
            self._say(content, ETag=f'"{hashlib.sha256(content).hexdigest()}"',
                      X_Repo_Commit=commit)  # fmt: skip


def _files(repository: Repository, revision: str) -> dict[str, bytes]:
    by_commit = {repository.commit_of(each): each for each in repository.branches}
    return repository.branches[by_commit.get(revision, revision)]


def _git(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


_MODEL = r"/api/models/([^/]+/[^/]+)"
_ROUTES = (
    ("GET", _MODEL + r"(?:/revision/(.+))?", _Handler._info),
    ("GET", _MODEL + r"/tree/(.+)", _Handler._tree),
    ("POST", "/api/repos/create", _Handler._create),
    ("POST", _MODEL + r"/branch/(.+)", _Handler._branch),
    ("POST", "/api/validate-yaml", _Handler._card),
    ("POST", _MODEL + r"/preupload/(.+)", _Handler._preupload),
    ("POST", r"/([^/]+/[^/]+)\.git/info/lfs/objects/batch", _Handler._batch),
    ("PUT", "/objects/([0-9a-f]{64})", _Handler._object),
    ("POST", _MODEL + r"/commit/(.+)", _Handler._commit),
    ("GET HEAD", r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", _Handler._file),
)

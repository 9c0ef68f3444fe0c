"""A small Hugging Face Hub on this machine: models, data sets and Spaces are pushed and pulled.

    with LocalHub() as hub:
        subprocess.run([...], env=hub.environment(home))

It speaks as much of the Hub's protocol as `huggingface_hub` and `datasets` use. What was pushed can
be asked of it: `hub.repos["dataset", "owner/name"].files()`. It breaks where it is told to:
`hub.breaks = {"PUT /lfs/.*": 403}`; or once each: `hub.breaks_once = {"GET .*parquet": [503, 0]}`,
where 0 cuts the connection in the middle of the answer.
"""

import base64
import hashlib
import json
import os
import re
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

USER = "somebody"
TOKEN = "hf_x"
READ_TOKEN = "hf_read"  # may see, but not push
LFS_SUFFIXES = {".parquet", ".png", ".jpg", ".safetensors", ".bin", ".flac", ".wav"}
KINDS = {"models": "model", "datasets": "dataset", "spaces": "space"}
ROOT = Path(__file__).resolve().parent.parent
RUN_EACH = """
import contextlib, io, json, os, sys, traceback
for line in sys.stdin:
    code, token = json.loads(line)
    os.environ.pop("HF_TOKEN", None)
    if token:
        os.environ["HF_TOKEN"] = token
    out, err, status = io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            exec(code, {})
        except SystemExit as ended:
            status = ended.code or 0
        except Exception:
            traceback.print_exc()
            status = 1
    print(json.dumps([status, out.getvalue(), err.getvalue()]), flush=True)
"""


@dataclass
class Repo:
    """A repository: its versions, the newest last; each maps a path to the hash of a file."""

    kind: str
    name: str
    private: bool
    versions: list[dict[str, str]] = field(default_factory=lambda: [{}])
    variables: dict[str, str] = field(default_factory=dict)  # a Space's

    @property
    def revision(self) -> str:
        content = json.dumps([self.name, len(self.versions), self.versions[-1]], sort_keys=True)
        return hashlib.sha1(content.encode()).hexdigest()

    def files(self) -> set[str]:
        """The paths in the newest version."""
        return set(self.versions[-1])


class LocalHub:
    """A Hub that listens on a free port of this machine while it is entered."""

    def __init__(self):
        self.repos: dict[tuple[str, str], Repo] = {}
        self.contents: dict[str, bytes] = {}  # SHA-256 -> a file
        self.requests: list[str] = []
        self.breaks: dict[str, int] = {}  # a pattern of requests -> the status that they get
        self.breaks_once: dict[str, list[int]] = {}  # likewise, each of them once
        hub = self

        class Handler(_Handler):
            pass

        Handler.hub = hub
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def __enter__(self) -> "LocalHub":
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *exception) -> None:
        self.server.shutdown()
        self.server.server_close()

    def environment(self, home: Path, token: str | None = TOKEN) -> dict[str, str]:
        """The variables for a process that is to take this for the Hub.

        Args:
            home: a folder for its caches.
            token: None for somebody who is not logged in.
        """
        kept = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
        return {
            **kept,
            "HF_ENDPOINT": self.url,
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HOME": str(home),
            **({"HF_TOKEN": token} if token else {}),
        }

    def read(self, kind: str, name: str, path: str) -> bytes:
        """A file of a repository's newest version."""
        return self.contents[self.repos[kind, name].versions[-1][path]]


class HubSession:
    """A process whose libraries are imported for a local Hub: it runs one command after the other.

    Args:
        hub: the Hub.
        home: a folder for its caches.
    """

    def __init__(self, hub: LocalHub, home: Path):
        self.process = subprocess.Popen(
            [sys.executable, "-c", RUN_EACH],
            cwd=ROOT,
            env=hub.environment(home) | {"HF_HUB_DISABLE_PROGRESS_BARS": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def __enter__(self) -> "HubSession":
        return self

    def __exit__(self, *exception) -> None:
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()

    def run(self, code: str, token: str | None = TOKEN) -> tuple[int, str, str]:
        """Runs Python code.

        Args:
            code: what to run.
            token: None for somebody who is not logged in.

        Returns:
            Status, output and errors, in neither of which a token may stand.
        """
        self.process.stdin.write(json.dumps([code, token]) + "\n")
        self.process.stdin.flush()
        status, out, err = json.loads(self.process.stdout.readline())
        assert TOKEN not in out + err and READ_TOKEN not in out + err
        return status, out, err

    def command(self, module: str, *arguments, token: str | None = TOKEN) -> tuple[int, str, str]:
        """Runs a module's `main` with arguments; of the errors, the last line: its sentence."""
        words = [str(argument) for argument in arguments]
        code = f"import sys; from {module} import main; sys.exit(main({words!r}))"
        status, out, err = self.run(code, token)
        return status, out, (err.strip().splitlines() or [""])[-1]


class _Handler(BaseHTTPRequestHandler):
    hub: LocalHub
    protocol_version = "HTTP/1.1"

    def log_message(self, *words) -> None:
        """Says nothing: the tests ask."""

    def do_GET(self) -> None:
        self._answer("GET")

    def do_HEAD(self) -> None:
        self._answer("HEAD")

    def do_POST(self) -> None:
        self._answer("POST")

    def do_PUT(self) -> None:
        self._answer("PUT")

    def do_DELETE(self) -> None:
        self._answer("DELETE")

    def _answer(self, method: str) -> None:
        url = urlsplit(self.path)
        path, self.query = unquote(url.path), parse_qs(url.query)
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        request = f"{method} {path}"
        self.hub.requests.append(request)
        for pattern, status in self.hub.breaks.items():
            if re.fullmatch(pattern, request):
                return self._send(status, {"error": "broken on purpose"})
        for pattern, statuses in self.hub.breaks_once.items():
            if statuses and re.fullmatch(pattern, request):
                status = statuses.pop(0)
                if not status:
                    return self._cut_off()
                return self._send(status, {"error": "broken on purpose"})
        for wanted, pattern, action in ROUTES:
            found = re.fullmatch(pattern, path)
            if found and method in wanted:
                return action(self, **found.groupdict())
        self._send(404, {"error": f"nothing answers {method} {path}"})

    def _send(self, status: int, content, headers: dict[str, str] | None = None) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        if "Content-Length" not in (headers or {}):
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _cut_off(self) -> None:
        """Promises more than comes."""
        self._send(206, b"half", {"Content-Length": "1000"})
        self.close_connection = True

    def _json(self) -> dict:
        return json.loads(self.body or b"{}")

    def _knows(self) -> bool:
        return self.headers.get("Authorization") in (f"Bearer {TOKEN}", f"Bearer {READ_TOKEN}")

    def _may_write(self) -> bool:
        """Whether whoever asks may push; else says so."""
        if self.headers.get("Authorization") == f"Bearer {TOKEN}":
            return True
        status = 403 if self._knows() else 401
        self._send(status, {"error": "You don't have the rights to do that"})
        return False

    def _repo(self, kind: str, name: str) -> Repo | None:
        """The repository, if whoever asks may see it; else says that there is none."""
        repo = self.hub.repos.get((KINDS.get(kind, kind), name))
        if repo is None or (repo.private and not self._knows()):
            self._send(404, {"error": "not found"}, {"X-Error-Code": "RepoNotFound"})
            return None
        return repo

    # --- who and what ------------------------------------------------------------------------

    def whoami(self) -> None:
        if not self._knows():
            return self._send(401, {"error": "Invalid token"})
        role = "read" if self.headers["Authorization"].endswith(READ_TOKEN) else "write"
        auth = {"type": "access_token", "accessToken": {"displayName": "test", "role": role}}
        self._send(200, {"type": "user", "name": USER, "auth": auth, "orgs": []})

    def validate_yaml(self) -> None:
        self._send(200, {"errors": [], "warnings": []})

    def create(self) -> None:
        if not self._may_write():
            return
        asked = self._json()
        if asked.get("organization", USER) != USER:
            return self._send(403, {"error": "You don't have the rights to do that"})
        kind = asked.get("type") or "model"
        name = f"{asked.get('organization') or USER}/{asked['name']}"
        prefix = {"model": "", "dataset": "datasets/", "space": "spaces/"}[kind]
        answer = {"url": f"{self.hub.url}/{prefix}{name}"}
        if (kind, name) in self.hub.repos:
            return self._send(409, {**answer, "error": "You already created this repo"})
        private = asked.get("visibility") == "private" or bool(asked.get("private"))
        self.hub.repos[kind, name] = Repo(kind, name, private)
        self._send(200, answer)

    def delete(self) -> None:
        asked = self._json()
        name = f"{asked.get('organization') or USER}/{asked['name']}"
        self.hub.repos.pop((asked.get("type") or "model", name), None)
        self._send(200, {})

    def branch(self, kind: str, name: str, branch: str) -> None:
        if self._repo(kind, name):
            self._send(200, {})

    def settings(self, kind: str, name: str) -> None:
        if repo := self._repo(kind, name):
            asked = self._json()
            if "visibility" in asked or "private" in asked:
                repo.private = asked.get("visibility") == "private" or bool(asked.get("private"))
            self._send(200, {"private": repo.private})

    def space_variables(self, name: str) -> None:
        repo = self._repo("spaces", name)
        if repo is None or (self.command == "POST" and not self._may_write()):
            return
        if self.command == "POST":
            asked = self._json()
            repo.variables[asked["key"]] = asked["value"]
        self._send(200, {key: {"key": key, "value": v} for key, v in repo.variables.items()})

    def info(self, kind: str, name: str, revision: str = "main") -> None:
        repo = self._repo(kind, name)
        if repo is None:
            return
        siblings = [{"rfilename": path} for path in sorted(repo.files())]
        self._send(
            200,
            {
                "_id": "1",
                "id": name,
                "author": name.split("/")[0],
                "sha": repo.revision,
                "private": repo.private,
                "gated": False,
                "disabled": False,
                "tags": [],
                "downloads": 0,
                "likes": 0,
                "siblings": siblings,
                "lastModified": "2020-01-01T00:00:00.000Z",
                "createdAt": "2020-01-01T00:00:00.000Z",
            },
        )

    # --- writing -----------------------------------------------------------------------------

    def preupload(self, kind: str, name: str, revision: str) -> None:
        repo = self._repo(kind, name)
        if repo is None or not self._may_write():
            return
        there = repo.versions[-1]
        files = [
            {
                "path": file["path"],
                "uploadMode": "lfs" if Path(file["path"]).suffix in LFS_SUFFIXES else "regular",
                "shouldIgnore": False,
                "oid": self._oid(file["path"], there[file["path"]])
                if file["path"] in there
                else None,
            }
            for file in self._json()["files"]
        ]
        self._send(200, {"files": files})

    def _oid(self, path: str, sha256: str) -> str:
        """What the Hub compares a file by: SHA-256 of what it keeps apart, else git's hash."""
        if Path(path).suffix in LFS_SUFFIXES:
            return sha256
        content = self.hub.contents[sha256]
        return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()

    def lfs_batch(self, name: str, kind: str | None = None) -> None:
        if not self._repo(kind or "models", name):
            return
        objects = []
        for wanted in self._json()["objects"]:
            href = f"{self.hub.url}/lfs/{wanted['oid']}"
            actions = {} if wanted["oid"] in self.hub.contents else {"upload": {"href": href}}
            objects.append({**wanted, **({"actions": actions} if actions else {})})
        answer = {"transfer": "basic", "objects": objects}
        self._send(200, answer, {"Content-Type": "application/vnd.git-lfs+json"})

    def lfs_put(self, oid: str) -> None:
        if hashlib.sha256(self.body).hexdigest() != oid:
            return self._send(400, {"error": "the content is not what its name says"})
        self.hub.contents[oid] = self.body
        self._send(200, {})

    def commit(self, kind: str, name: str, revision: str) -> None:
        repo = self._repo(kind, name)
        if repo is None or not self._may_write():
            return
        files = dict(repo.versions[-1])
        for line in self.body.splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if (
                entry["key"] == "header"
                and value.get("parentCommit", repo.revision) != repo.revision
            ):
                return self._send(412, {"error": "A commit has happened since"})
            if entry["key"] == "file":
                content = base64.b64decode(value["content"])
                oid = hashlib.sha256(content).hexdigest()
                self.hub.contents[oid] = content
                files[value["path"]] = oid
            elif entry["key"] == "lfsFile":
                if value["oid"] not in self.hub.contents:
                    return self._send(400, {"error": f"{value['path']} was not uploaded"})
                files[value["path"]] = value["oid"]
            elif entry["key"] == "deletedFile":
                files.pop(value["path"], None)
            elif entry["key"] == "deletedFolder":
                folder = value["path"].rstrip("/") + "/"
                files = {path: oid for path, oid in files.items() if not path.startswith(folder)}
        repo.versions.append(files)
        url = f"{self.hub.url}/{kind}/{name}/commit/{repo.revision}"
        self._send(200, {"success": True, "commitOid": repo.revision, "commitUrl": url})

    def super_squash(self, kind: str, name: str, branch: str) -> None:
        if repo := self._repo(kind, name):
            del repo.versions[:-1]
            self._send(200, {})

    def lfs_files(self, kind: str, name: str) -> None:
        repo = self._repo(kind, name)
        if repo is None:
            return
        # As on the Hub: every file that was ever pushed here, until it is deleted for good.
        self._send(
            200,
            [
                {
                    "fileOid": oid,
                    "filename": oid[:8],
                    "oid": oid,
                    "pushedAt": "2020-01-01T00:00:00.000Z",
                    "size": len(content),
                }
                for oid, content in self.hub.contents.items()
            ],
        )

    def lfs_delete(self, kind: str, name: str) -> None:
        if self._repo(kind, name):
            for oid in self._json()["deletions"]["sha"]:
                self.hub.contents.pop(oid, None)
            self._send(200, {})

    # --- reading -----------------------------------------------------------------------------

    def tree(self, kind: str, name: str, revision: str, path: str | None = None) -> None:
        repo = self._repo(kind, name)
        if repo is None:
            return
        below = f"{path.strip('/')}/" if path else ""
        recursive = self.query.get("recursive", ["false"])[0].lower() in ("true", "1")
        entries, folders = [], set()
        for file, oid in sorted(repo.versions[-1].items()):
            if not file.startswith(below):
                continue
            rest = file[len(below) :]
            if "/" in rest and not recursive:
                folders.add(below + rest.split("/")[0])
                continue
            size = len(self.hub.contents[oid])
            entry = {"type": "file", "path": file, "size": size, "oid": oid[:40]}
            if Path(file).suffix in LFS_SUFFIXES:
                entry["lfs"] = {"oid": oid, "size": size, "pointerSize": 134}
            entries.append(entry)
        entries += [{"type": "directory", "path": f, "oid": "0" * 40} for f in sorted(folders)]
        if path and not entries:
            code = {"X-Error-Code": "EntryNotFound"}
            return self._send(404, {"error": "not found"}, code)
        self._send(200, entries)

    def paths_info(self, kind: str, name: str, revision: str) -> None:
        repo = self._repo(kind, name)
        if repo is None:
            return
        try:
            wanted = self._json()["paths"]
        except ValueError:
            wanted = parse_qs(self.body.decode()).get("paths", [])
        entries = []
        for path in wanted:
            if path in repo.files():
                oid = repo.versions[-1][path]
                size = len(self.hub.contents[oid])
                entries.append({"type": "file", "path": path, "size": size, "oid": oid[:40]})
        self._send(200, entries)

    def resolve(self, name: str, revision: str, path: str, kind: str | None = None) -> None:
        repo = self._repo(kind or "models", name)
        if repo is None:
            return
        if revision not in ("main", repo.revision):
            code = {"X-Error-Code": "RevisionNotFound"}
            return self._send(404, {"error": "not found"}, code)
        if path not in repo.files():
            code = {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": repo.revision}
            return self._send(404, {"error": "not found"}, code)
        oid = repo.versions[-1][path]
        content, status = self.hub.contents[oid], 200
        headers = {"X-Repo-Commit": repo.revision, "ETag": f'"{oid}"', "Accept-Ranges": "bytes"}
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        if asked:
            first, last = int(asked[1]), min(int(asked[2] or len(content)), len(content) - 1)
            headers["Content-Range"] = f"bytes {first}-{last}/{len(content)}"
            content, status = content[first : last + 1], 206
        headers["Content-Length"] = str(len(content))
        self._send(status, content, headers)


_KIND, _NAME = r"(?P<kind>models|datasets|spaces)", r"(?P<name>[^/]+/[^/]+)"
_REVISION, _API = r"(?P<revision>[^/]+)", rf"/api/{_KIND}/{_NAME}"
_WEB = rf"/(?:(?P<kind>datasets|spaces)/)?{_NAME}"
ROUTES = [
    (("GET",), "/api/whoami-v2", _Handler.whoami),
    (("POST",), "/api/validate-yaml", _Handler.validate_yaml),
    (("POST",), "/api/repos/create", _Handler.create),
    (("DELETE",), "/api/repos/delete", _Handler.delete),
    (("POST",), rf"{_API}/branch/(?P<branch>.+)", _Handler.branch),
    (("PUT",), rf"{_API}/settings", _Handler.settings),
    (("GET", "POST"), rf"/api/spaces/{_NAME}/variables", _Handler.space_variables),
    (("POST",), rf"{_API}/preupload/{_REVISION}", _Handler.preupload),
    (("POST",), rf"{_API}/commit/{_REVISION}", _Handler.commit),
    (("POST",), rf"{_API}/super-squash/(?P<branch>.+)", _Handler.super_squash),
    (("GET",), rf"{_API}/lfs-files", _Handler.lfs_files),
    (("POST",), rf"{_API}/lfs-files/batch", _Handler.lfs_delete),
    (("GET",), rf"{_API}/tree/{_REVISION}(?:/(?P<path>.*))?", _Handler.tree),
    (("POST",), rf"{_API}/paths-info/{_REVISION}", _Handler.paths_info),
    (("GET", "HEAD"), rf"{_API}/revision/{_REVISION}", _Handler.info),
    (("GET", "HEAD"), _API, _Handler.info),
    (("POST",), rf"{_WEB}\.git/info/lfs/objects/batch", _Handler.lfs_batch),
    (("PUT",), "/lfs/(?P<oid>[0-9a-f]{64})", _Handler.lfs_put),
    (("GET", "HEAD"), rf"{_WEB}/resolve/{_REVISION}/(?P<path>.+)", _Handler.resolve),
]

"""A small client for PocketBase's REST API, with Python's standard library alone."""

import json
import urllib.error
import urllib.parse
import urllib.request

# Never through a proxy: the servers are on this machine.
_http = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def get_status(url, timeout=2):
    """Status and body of a GET; without an answer, status 0 and the reason."""
    try:
        with _http.open(url, timeout=timeout) as reply:
            return reply.status, reply.read().decode(errors="replace")
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode(errors="replace")
    except OSError as error:
        return 0, str(getattr(error, "reason", error))


class PocketBase:
    """A PocketBase server, with the permissions of a superuser."""

    def __init__(self, url, email, password):
        self._url = url
        self._token = None
        login = {"identity": email, "password": password}
        self._token = self._call("POST", "/api/collections/_superusers/auth-with-password", login)["token"]

    def find(self, collection, **fields):
        """The first record whose fields have these values, or None."""
        quote = lambda value: "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
        query = urllib.parse.urlencode(
            {"perPage": 1, "filter": " && ".join(f"{name} = {quote(value)}" for name, value in fields.items())}
        )
        items = self._call("GET", f"/api/collections/{collection}/records?{query}")["items"]
        return items[0] if items else None

    def create(self, collection, **fields):
        return self._call("POST", f"/api/collections/{collection}/records", fields)

    def update(self, collection, record, **fields):
        return self._call("PATCH", f"/api/collections/{collection}/records/{record}", fields)

    def _call(self, method, path, body=None):
        request = urllib.request.Request(
            self._url + path,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json", **({"Authorization": self._token} if self._token else {})},
        )
        try:
            with _http.open(request, timeout=10) as reply:
                return json.load(reply)
        except urllib.error.HTTPError as error:
            raise RuntimeError(f"PocketBase answers {error.code} to {method} {path}: {error.read().decode()}") from None
        except OSError as error:
            raise RuntimeError(f"PocketBase does not answer {method} {path}: {error}") from None

"""How S3 is reached: one account for this process, from the AWS_* variables and files that every AWS tool reads.

Keys are asked for again and again, never kept: a token that expires in the middle of a job is renewed by whatever
gave it (a role, a web identity, a credential process), and a credentials file that was rewritten is read anew.

Three libraries speak to S3 for us, and all are told the same here. botocore lists and reads sources, because it
alone names every key that a bucket may hold; obstore writes and reads archives, whose names are ours; deltalake
keeps the log.
"""

from __future__ import annotations

import functools
import os
import re
import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

CONNECT_S = 10
ATTEMPTS = 5  # of one request for a source; about 10 s of waiting between them, and the reader asks again
RETRIES = 8  # of one request for an archive; about 25 s of waiting, since no one else asks again
KEYS_LIVE_S = 60  # no longer: a credentials file may be rewritten at any time
NO_KEYS = "no AWS credentials were found"
_TRUE = ("1", "true", "yes", "on")
_BUCKET = re.compile(r"[A-Za-z0-9._-]{1,255}")  # botocore's own: other stores take more names than Amazon

_KEYS = "the store refuses these credentials"
_LOGIN = "Get new ones, for example by 'aws sso login', and run the same command again"
_REFUSALS = {  # by what a store or a library says: what is wrong and what to do, without full stops
    NO_KEYS: (
        NO_KEYS,
        "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE; in a cloud, give the machine a role",
    ),
    "SignatureDoesNotMatch": (
        _KEYS,
        "The secret does not fit the key: check AWS_SECRET_ACCESS_KEY, or the profile that it comes from",
    ),
    "InvalidAccessKeyId": (
        _KEYS,
        "The store knows no such key: check AWS_ACCESS_KEY_ID or the profile, and that AWS_ENDPOINT_URL is its store",
    ),
    "ExpiredToken": ("the credentials have expired", _LOGIN),
    "TokenRefreshRequired": ("the credentials have expired", _LOGIN),
    "InvalidToken": (_KEYS, f"Check AWS_SESSION_TOKEN, which belongs to one pair of keys. {_LOGIN}"),
    "RequestTimeTooSkewed": ("this machine's clock is wrong", "Set the clock, for example by NTP"),
}

_SILENT = (
    "(Connect)",
    "kind: Connect,",
)  # object_store says so, or notes it, where it came through to nobody
_SILENCE = re.compile(
    "Connection refused|No route to host|timed out|Name or service not known|Temporary failure in name resolution"
)


def no_keys() -> tuple[str, str]:
    """What is wrong where there are no keys, and what to do; without full stops."""
    return _REFUSALS[NO_KEYS]


def refusal(text: str) -> tuple[str, str] | None:
    """What is wrong with the keys (or the clock) and what to do, where a code or an error's text tells of it.

    Both are without full stops: errors and checks end the sentences.
    """
    if "Unable to locate credentials" in text:
        return no_keys()
    for code, (problem, remedy) in _REFUSALS.items():
        if code in text:
            return (problem if code == NO_KEYS else f"{problem} ({code})"), remedy
    return None


def silence(text: str) -> tuple[str, str] | None:
    """The same where an error's text tells that nobody answers at the endpoint."""
    if not any(mark in text for mark in _SILENT):
        return None
    why = _SILENCE.search(text)
    own = account().endpoint
    problem = f"the endpoint {own or account().amazon} does not answer" + (f" ({why[0]})" if why else "")
    named = "AWS_ENDPOINT_URL, or the profile, names it: check it" if own else "Check AWS_REGION"
    return problem, f"{named} and the connection, and run the same command again"


def bucket_problem(url: str) -> str:
    """Why no bucket can have the name that a URL gives; empty where one can."""
    bucket, _ = split(url)
    if not bucket:
        return "no bucket is named"
    if not _BUCKET.fullmatch(bucket) or ".." in bucket:
        return f"no bucket can be named {bucket!r}"
    return ""


def is_s3(url: str) -> bool:
    return url.startswith(("s3://", "s3a://"))


def split(url: str) -> tuple[str, str]:
    """Bucket and key (or prefix) of an s3:// URL, the key exactly as written."""
    bucket, _, key = url.partition("://")[2].partition("/")
    return bucket, key


@dataclass(frozen=True, slots=True, kw_only=True)
class Keys:
    access_key_id: str
    secret_access_key: str
    token: str | None


class Account:
    """Endpoint, region and keys. Made by ``account()``; safe to share between threads."""

    def __init__(self) -> None:
        import botocore.session  # type: ignore[import-untyped]

        session = botocore.session.Session()
        scoped: dict[str, Any] = session.get_scoped_config() if _profile_exists(session) else {}
        self.endpoint = _endpoint(session, scoped)
        self.region: str = (
            os.environ.get("AWS_REGION") or session.get_config_variable("region") or "us-east-1"
        )
        self.anonymous = _set("AWS_SKIP_SIGNATURE") or _set("AWS_NO_SIGN_REQUEST")
        self.answer_s = float(os.environ.get("RECBATCH_S3_TIMEOUT") or 60)
        self._lock = threading.RLock()
        self._credentials: Any = None
        self._found_at = 0.0
        self._client: Any = None
        self._buckets: dict[tuple[str, str, int], Any] = {}

    @property
    def path_style(self) -> bool:
        """Other stores than Amazon's have one host for all buckets, unless said otherwise."""
        return self.endpoint is not None and not _set("AWS_VIRTUAL_HOSTED_STYLE_REQUEST")

    def keys(self) -> Keys | None:
        """The keys of this moment, renewed where they can be; None where there are none.

        Raises botocore's errors where the one who gives keys can't be asked.
        """
        import botocore.session  # type: ignore[import-untyped]

        with self._lock:
            kept = getattr(self._credentials, "method", "") == "env" or hasattr(
                self._credentials, "refresh_needed"
            )  # the environment stays as it is, and what expires renews itself
            if self._credentials is None or not (kept or time.monotonic() - self._found_at < KEYS_LIVE_S):
                self._credentials = botocore.session.Session().get_credentials()
                self._found_at = time.monotonic()
            if self._credentials is None:
                return None
            frozen = self._credentials.get_frozen_credentials()
        if not (frozen.access_key and frozen.secret_key):
            return None
        return Keys(
            access_key_id=frozen.access_key, secret_access_key=frozen.secret_key, token=frozen.token or None
        )

    def forget(self) -> None:
        """Look for keys from the start again: those at hand were refused."""
        with self._lock:
            self._credentials = self._client = None

    def client(self) -> Any:
        """botocore's client; it asks for the keys anew every minute."""
        import botocore  # type: ignore[import-untyped]
        import botocore.session  # type: ignore[import-untyped]
        from botocore.config import Config  # type: ignore[import-untyped]
        from botocore.credentials import CredentialResolver  # type: ignore[import-untyped]

        with self._lock:
            if self._client is None:
                session = botocore.session.Session()
                session.register_component("credential_provider", CredentialResolver([_provider(self)]))
                config = Config(
                    connect_timeout=CONNECT_S,
                    read_timeout=self.answer_s,
                    retries={"mode": "standard", "total_max_attempts": ATTEMPTS},
                    max_pool_connections=64,
                    s3={"addressing_style": "path"} if self.path_style else None,
                    signature_version=botocore.UNSIGNED if self.anonymous else None,
                )
                self._client = session.create_client(
                    "s3", region_name=self.region, endpoint_url=self.endpoint, config=config
                )
            return self._client

    def bucket(self, name: str, prefix: str = "", *, retries: int | None = None) -> Any:
        """obstore's view of a bucket, or of what stands below a prefix in it."""
        from obstore.store import S3Store

        retries = RETRIES if retries is None else retries
        with self._lock:
            if (name, prefix, retries) not in self._buckets:
                config: Any = {"region": self.region, "skip_signature": self.anonymous}
                config["virtual_hosted_style_request"] = not self.path_style
                if self.endpoint is not None:
                    config["endpoint"] = self.endpoint
                self._buckets[name, prefix, retries] = S3Store(
                    name,
                    prefix=prefix or None,
                    config=config,
                    client_options={
                        "allow_http": self._http,
                        "connect_timeout": timedelta(seconds=CONNECT_S),
                        "timeout": timedelta(seconds=self.answer_s),
                    },
                    retry_config={
                        "max_retries": retries,
                        "retry_timeout": timedelta(minutes=3),
                        "backoff": {
                            "init_backoff": timedelta(milliseconds=250),
                            "max_backoff": timedelta(seconds=8),
                            "base": 2,
                        },
                    },
                    credential_provider=None if self.anonymous else self._for_obstore,
                )
            return self._buckets[name, prefix, retries]

    def delta_options(self) -> dict[str, str]:
        """What a deltalake handle is told. It keeps the keys of this moment, so handles are opened anew.

        It is told the keys because it would find fewer of them than botocore: with an endpoint of one's own it
        looks neither at profiles nor at credential processes (deltalake 1.6.6). It is told Amazon's own endpoint
        too, the one that it would take anyhow: without, each handle asks the machine's metadata service for a region
        that it knows, waits for it where there is none, and warns on standard error.

        Raises PermissionError where there are no keys, and botocore's errors where the one who gives them fails.
        """
        options = {
            "AWS_REGION": self.region,
            "max_retries": "3",  # the loop around a commit tries again itself
            "retry_timeout": "30s",
            "connect_timeout": f"{CONNECT_S}s",
            "timeout": f"{self.answer_s:g}s",
        }
        options["AWS_ENDPOINT_URL"] = self.endpoint or self.amazon
        if self.endpoint is None:  # with "true" it would take the endpoint for a bucket's own host
            options["AWS_VIRTUAL_HOSTED_STYLE_REQUEST"] = "false"
        if self._http:
            options["AWS_ALLOW_HTTP"] = "true"
        if self.anonymous:
            options["AWS_SKIP_SIGNATURE"] = "true"
        else:
            keys = self._needed_keys()
            options["AWS_ACCESS_KEY_ID"] = keys.access_key_id
            options["AWS_SECRET_ACCESS_KEY"] = keys.secret_access_key
            if keys.token:
                options["AWS_SESSION_TOKEN"] = keys.token
        return options

    @property
    def amazon(self) -> str:
        """Amazon's endpoint of this region."""
        return f"https://s3.{self.region}.amazonaws.com" + (".cn" if self.region.startswith("cn-") else "")

    @property
    def _http(self) -> bool:
        return self.endpoint is not None and self.endpoint.startswith("http://")

    def _needed_keys(self) -> Keys:
        keys = self.keys()
        if keys is None:
            raise PermissionError(NO_KEYS)
        return keys

    def _for_obstore(self) -> Any:
        keys = self._needed_keys()
        return {
            "access_key_id": keys.access_key_id,
            "secret_access_key": keys.secret_access_key,
            "token": keys.token,
            "expires_at": datetime.now(UTC) + timedelta(seconds=KEYS_LIVE_S),
        }


def account() -> Account:
    """The account that the environment of this moment names; the same one as long as it stays so."""
    relevant = ("AWS_", "RECBATCH_S3_", "HOME")
    return _account(tuple(sorted(item for item in os.environ.items() if item[0].startswith(relevant))))


@functools.lru_cache(maxsize=8)
def _account(_: tuple[tuple[str, str], ...]) -> Account:
    return Account()


def _provider(account: Account) -> Any:
    """botocore asks this for keys, and again before what it got is a minute old."""
    from botocore.credentials import CredentialProvider, RefreshableCredentials  # type: ignore[import-untyped]

    refresh_ahead_s = 15 * 60  # botocore's own: it looks for new keys so long before the old ones expire

    def metadata() -> dict[str, str] | None:
        keys = account.keys()
        if keys is None:
            return None
        expires = datetime.now(UTC) + timedelta(seconds=refresh_ahead_s + KEYS_LIVE_S)
        return {
            "access_key": keys.access_key_id,
            "secret_key": keys.secret_access_key,
            "token": keys.token or "",
            "expiry_time": expires.isoformat(),
        }

    class Provider(CredentialProvider):  # type: ignore[misc]
        METHOD = CANONICAL_NAME = "recbatch"

        def load(self) -> Any:
            first = metadata()
            if first is None:
                return None
            return RefreshableCredentials.create_from_metadata(
                metadata=first, refresh_using=metadata, method=self.METHOD
            )

    return Provider()


def _profile_exists(session: Any) -> bool:
    """A profile that is named but nowhere defined fails where keys are asked for, with a sentence of its own."""
    return session.profile is None or session.profile in session.available_profiles


def _endpoint(session: Any, scoped: dict[str, Any]) -> str | None:
    """In AWS's own order: for S3 or for all, from the environment, then from the profile."""
    for name in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"):
        if os.environ.get(name):
            return os.environ[name].rstrip("/")
    if _set("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS"):
        return None
    services = session.full_config.get("services", {}).get(scoped.get("services", ""), {})
    found = services.get("s3", {}).get("endpoint_url") or scoped.get("endpoint_url")
    return str(found).rstrip("/") if found else None


def _set(name: str) -> bool:
    return os.environ.get(name, "").lower() in _TRUE

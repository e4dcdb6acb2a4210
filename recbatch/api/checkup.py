"""Is all well that recbatch needs? Each thing looked at by itself, with the remedy where it is not."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

from recbatch.api.common import Location
from recbatch.health import Check, Probe, State

__all__ = ["Check", "State", "doctor"]

FIRST_MODELS_S = 300.0  # kernels compile and networks load at the first time


def doctor(*targets: Location, address: str | None = None, models: bool = True) -> Iterator[Check]:
    """Checks of this machine, of stores and archives, and of a cluster, one by one as they are done.

    Nothing is changed but one small object that is written into each store and removed again.

    Args:
        targets: archives or sources, paths or URLs.
        address: a cluster's job server, such as ``http://head:8265``.
        models: also code a test picture with the package's models, which takes seconds.

    No check raises: what goes wrong is a check with state ``problem``.
    """
    from recbatch.health import examine

    yield from examine(
        _probes([os.fspath(target) for target in targets], address, models=models), secrets=_secrets()
    )


def _probes(targets: Sequence[str], address: str | None, *, models: bool) -> Iterator[Probe]:
    from recbatch.api import checkup_machine as machine

    yield Probe(name="python", look=machine.python)
    yield Probe(name="packages", look=machine.packages)
    yield Probe(name="cores", look=machine.cores)
    yield Probe(name="temporary files", look=machine.temporary_files)
    yield Probe(name="torch", look=machine.torch, limit_s=60)
    yield Probe(name="gpu", look=machine.gpu, limit_s=60)
    yield Probe(name="kernels", look=machine.kernels, limit_s=60)
    if models:
        late = "Run 'recbatch models verify' to see where it hangs; a first run compiles for a minute."
        yield Probe(name="models", look=machine.models, limit_s=FIRST_MODELS_S, late=late)
        yield Probe(name="exactness", look=machine.exactness, limit_s=60)
    yield Probe(name="ray", look=_ray, limit_s=30)
    for target in targets:
        yield Probe(name=target, look=lambda target=target: _target(target), limit_s=30)  # type: ignore[misc]
    if address is not None:
        yield Probe(name=address, look=lambda: _cluster(address), limit_s=60)


def _ray() -> Iterator[Check]:
    from recbatch.engine.doctor import ray_here

    yield from ray_here(os.environ)


def _cluster(address: str) -> Iterator[Check]:
    from recbatch.engine.doctor import cluster

    yield from cluster(address)


def _target(target: str) -> Iterator[Check]:
    from recbatch.archive.probe import probe_store
    from recbatch.engine.doctor import contents

    reached = True
    for check in probe_store(target):
        reached = reached and check.state is not State.problem
        yield check
    if reached:
        yield from contents(target)


def _secrets() -> list[str]:
    """Those that stand in no environment variable: in a credentials file, in Ray's."""
    found: list[str] = []
    try:
        from recbatch.engine.head import find_token

        found.append(find_token(os.environ)[0])
        from recbatch import s3

        if keys := s3.account().keys():
            found += [keys.secret_access_key, keys.token or ""]
    except Exception:  # what is wrong there, a check tells
        pass
    return [secret for secret in found if secret]

"""Which ended GoQueueJobs are deleted where there are more than may be kept. Pure."""

from collections import defaultdict
from collections.abc import Iterable


def surplus(ended: Iterable[tuple[str, str, str]], limit: int) -> list[str]:
    """Uids of the resources to delete so that `limit` remain, of (namespace, finishedAt, uid) of all that have ended.

    The namespaces that have the most give theirs, each its oldest ones, down to an equal share: a namespace that makes
    many jobs does not push the history of others out.
    """
    of_namespace: defaultdict[str, list[tuple[str, str]]] = defaultdict(list)
    for namespace, finished, uid in ended:
        of_namespace[namespace].append((finished, uid))
    share = _share([len(found) for found in of_namespace.values()], limit)
    spare = limit - sum(min(len(found), share) for found in of_namespace.values())
    gone: list[str] = []
    for found in of_namespace.values():
        kept = share
        if len(found) > share and spare > 0:
            kept, spare = share + 1, spare - 1
        found.sort()
        gone.extend(uid for _, uid in found[: max(0, len(found) - kept)])
    return gone


def _share(counts: list[int], limit: int) -> int:
    """The largest number of which every namespace can keep so many and all together no more than `limit`."""
    left = limit
    for place, count in enumerate(sorted(counts)):
        share = left // (len(counts) - place)
        if count > share:
            return share
        left -= count
    return max(counts, default=0)

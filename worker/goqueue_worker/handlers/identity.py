"""What makes a message the same message to its receiver: one identity for all attempts of a job, and another for every
other job of any installation."""

import hashlib


def digest(installation: str, job_id: int, created: float, *content: bytes | str) -> str:
    """24 hexadecimal digits of the installation, the job's id, when it was made (seconds since the epoch) and what is
    sent.

    Ids of jobs alone begin anew with each database, and a database that loses its last transactions gives the ids of
    the jobs that it lost to others. The content tells apart the jobs of a copied database, which has the installation
    of its original.
    """
    hashed = hashlib.sha256(f"{installation}\0{job_id}\0{created!r}".encode())
    for part in content:
        hashed.update(b"\0" + (part if isinstance(part, bytes) else part.encode()))
    return hashed.hexdigest()[:24]

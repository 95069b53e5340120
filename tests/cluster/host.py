"""What the assembled cluster takes from the machine, and gives back: Debian packages, settings of the kernel, rules."""

import contextlib
import json
import os
import re
import shutil
from collections.abc import Iterable
from pathlib import Path

from tests.cluster.shell import ClusterError, run, say, succeeds

# Command → Debian package that has it. What podman itself needs comes by its dependencies, but for those it recommends.
COMMANDS = {
    "podman": "podman",
    "runc": "runc",
    "conmon": "conmon",
    "iptables": "iptables",
    "mmdebstrap": "mmdebstrap",
    "zstd": "zstd",
}
LIBRARIES = {"/usr/lib/podman/netavark": "netavark", "/usr/lib/podman/aardvark-dns": "aardvark-dns"}

_SETTINGS = (  # what podman, kubelet and kube-proxy may change for the whole machine
    "net.ipv4.ip_forward",
    "net.ipv4.conf.all.route_localnet",
    "net.bridge.bridge-nf-call-iptables",
    "net.bridge.bridge-nf-call-ip6tables",
    "net.netfilter.nf_conntrack_max",
    "net.netfilter.nf_conntrack_tcp_timeout_established",
    "net.netfilter.nf_conntrack_tcp_timeout_close_wait",
    "kernel.panic",
    "kernel.panic_on_oops",
    "kernel.keys.root_maxkeys",
    "kernel.keys.root_maxbytes",
    "vm.overcommit_memory",
    "vm.panic_on_oom",
)
_NETNS = "/run/netns"


def install_packages() -> None:
    """Install the missing Debian packages.

    Raises:
        ClusterError: something is missing and this is not root on a Debian; says what.
    """
    missing = {package for command, package in COMMANDS.items() if shutil.which(command) is None}
    missing |= {package for path, package in LIBRARIES.items() if not Path(path).exists()}
    if not missing:
        return
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise ClusterError(f"missing, and only root on a Debian could install it here: {', '.join(sorted(missing))}")
    say(f"installing {', '.join(sorted(missing))}")
    install = ["apt-get", "install", "-y", "-q", "--no-install-recommends", *sorted(missing)]
    quiet = {"DEBIAN_FRONTEND": "noninteractive"}
    if not succeeds(install, timeout=600, env=quiet):  # most often: the lists are old, or there are none yet
        run(["apt-get", "update", "-q"], what="update the lists of packages", timeout=300)
        run(install, what="install packages", timeout=600, env=quiet)


def remember_settings(file: Path) -> None:
    """Write down the kernel's settings, unless that was done before: the first values are the machine's own."""
    if file.exists():
        return
    values = {name: path.read_text().strip() for name in _SETTINGS if (path := _setting(name)).exists()}
    values[_NETNS] = "mounted" if _is_mounted(_NETNS) else ""
    partial = file.with_suffix(".new")
    partial.write_text(json.dumps(values, indent=1))
    partial.rename(file)


def restore_settings(file: Path) -> None:
    """Set back what differs from what was written down."""
    if not file.exists():
        return
    values = json.loads(file.read_text())
    # Podman mounts this folder onto itself; with no container left nothing needs it.
    if not values.pop(_NETNS, "mounted") and _is_mounted(_NETNS) and not os.listdir(_NETNS):
        run(["umount", _NETNS], what=f"unmount {_NETNS}", timeout=20)
    for name, value in values.items():
        path = _setting(name)
        if path.exists() and path.read_text().strip() != value:
            path.write_text(value)
    file.unlink()


def _is_mounted(folder: str) -> bool:
    # os.path.ismount does not see a folder that is mounted onto itself.
    return any(line.split()[4] == folder for line in Path("/proc/self/mountinfo").read_text().splitlines())


def _setting(name: str) -> Path:
    return Path("/proc/sys", *name.split("."))


def remove_leftover_groups() -> None:
    """Remove the empty control groups above containers that are gone."""
    for parent in [*Path("/sys/fs/cgroup").glob("libpod_parent"), *Path("/sys/fs/cgroup").glob("*/libpod_parent")]:
        for folder, _, _ in os.walk(parent, topdown=False):
            with contextlib.suppress(OSError):  # not empty: some other podman's
                os.rmdir(folder)


def remove_leftover_rules() -> None:
    """Remove the empty chains that netavark leaves behind when the last network is gone, and the jumps to them."""
    for command in ("iptables", "ip6tables"):
        if shutil.which(command) is None:
            continue
        for table in ("filter", "nat"):
            _remove_chains([command, "-w", "-t", table])


def _remove_chains(iptables: list[str]) -> None:
    rules = run([*iptables, "-S"], what="list the packet filter's rules", timeout=20).splitlines()
    chains = {match[1] for rule in rules if (match := re.match(r"-N (NETAVARK\S*)", rule))}
    if not chains or _in_use(rules, chains):
        return
    for rule in rules:
        if rule.startswith("-A ") and rule.split("-j ")[-1].split(" ")[0] in chains:
            run([*iptables, *("-D", *_words(rule)[1:])], what=f"remove the rule {rule}", timeout=20)
    for chain in chains:
        run([*iptables, "-F", chain], what=f"empty the chain {chain}", timeout=20)
    for chain in chains:
        run([*iptables, "-X", chain], what=f"remove the chain {chain}", timeout=20)


def _in_use(rules: Iterable[str], chains: set[str]) -> bool:
    """Whether the chains serve an address: some other container of this machine then still needs them."""
    own = [rule for rule in rules if rule.startswith("-A ") and rule.split(" ")[1] in chains]
    return any(re.search(r"-[sd] (?!224\.0\.0\.0/4)\S+", rule) for rule in own)


def _words(rule: str) -> list[str]:
    return [word.strip('"') for word in re.findall(r'"[^"]*"|\S+', rule)]

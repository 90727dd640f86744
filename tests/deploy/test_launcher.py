"""`./metering`: at once when set up, one clear line when it cannot be set up.

The set-up itself installs packages and is tried on clean checkouts by hand and in CI.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

PROJECT_ROOT = Path(__file__).resolve().parents[2]
INPUTS = (
    "requirements.lock",
    "deploy/bootstrap.lock",
    "deploy/embedded/jvm.lock",
    "deploy/embedded/pom.xml",
    "deploy/embedded/jars.lock",
)
NOBODY = 65534
ECHO = '#!/bin/sh\nprintf "%s|" "$PYTHONPATH" "$@"\n'


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout that is set up, with a Python that only prints what it is asked to run."""
    root = tmp_path / "a checkout"
    for name in ("metering", *INPUTS):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(PROJECT_ROOT / name, root / name)
    python = root / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(ECHO)
    python.chmod(0o755)
    together = b"".join((root / name).read_bytes() for name in INPUTS)
    (root / ".venv" / ".metering-ready").write_text(f"{hashlib.sha256(together).hexdigest()}  -\n")
    return root


def _run(
    command: Path,
    *arguments: str,
    cwd: Path,
    path: str | None = None,
    user: int | None = None,
    **variables: str,
) -> "subprocess.CompletedProcess[str]":
    ours = ("PYTHONPATH", "PIP_", "UV_", "SSL_", "MAVEN_")
    inherited = {name: text for name, text in os.environ.items() if not name.startswith(ours)}
    environment = {**inherited, **variables}
    if path is not None:
        environment["PATH"] = path
    return subprocess.run(
        [str(command), *arguments],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        user=user,
        group=user,
        extra_groups=None if user is None else [],
    )


def test_arguments_are_passed_on_from_anywhere(checkout: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(checkout / "metering")
    outcome = _run(link, "emit", "two words", "", "--x=*", cwd=Path("/"))
    assert outcome.stdout == f"{checkout}|-m|cli|emit|two words||--x=*|"
    assert outcome.stderr == ""


def test_a_package_of_the_working_directory_is_not_taken_for_ours(
    checkout: Path, tmp_path: Path
) -> None:
    _stub(checkout / ".venv" / "bin" / "python", f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    elsewhere = tmp_path / "elsewhere"
    for root in (checkout, elsewhere):
        (root / "cli").mkdir(parents=True)
        (root / "cli" / "__init__.py").touch()
        (root / "cli" / "__main__.py").write_text(f"print({str(root)!r})\n")
    outcome = _run(checkout / "metering", cwd=elsewhere)
    assert outcome.stdout == f"{checkout}\n", outcome.stderr


def test_nothing_is_done_twice(checkout: Path) -> None:
    _run(checkout / "metering", cwd=checkout)
    started = time.perf_counter()
    _run(checkout / "metering", cwd=checkout)
    # Measured: 20 ms; the bound leaves room for a busy machine.
    assert time.perf_counter() - started < 0.5


@pytest.mark.parametrize("changed", INPUTS)
def test_a_changed_lock_sets_up_again(checkout: Path, changed: str) -> None:
    with (checkout / changed).open("a") as lock:
        lock.write("\n")
    outcome = _run(checkout / "metering", "up", cwd=checkout)
    assert "installing" in outcome.stderr


TOOLS = (
    "bash", "cat", "cp", "dirname", "env", "flock", "grep", "mkdir", "mv", "readlink", "rm", "seq",
    "sha256sum", "sleep", "sort", "tail", "touch",
)  # fmt: skip
PYTHON = """#!/bin/bash
# A Python that plays the part of any that the launcher asks.
case "$*" in
    *"pip config list") printf "global.cert='/etc/our-own.pem'\nglobal.timeout='60'\n" ;;
    *"version_info[:2])"*) echo 3.11 ;;
    *"import venv, ensurepip"*) exit 1 ;;
    *find_java*) [[ -e $STUBS/java ]] ;;
    *) exit 0 ;;
esac
"""
UV = """#!/bin/bash
echo "$SSL_CERT_FILE $*" >>"$STUBS/uv.asked"
echo "Downloading chdb (128.0MiB)"
[[ $* != *sync* ]] || sleep 4
"""
APT = """#!/bin/bash
echo "$*" >>"$STUBS/apt.asked"
if [[ $* == *install*maven* ]]; then cp "$STUBS/cat" "$STUBS/mvn"; touch "$STUBS/java"; fi
"""


@pytest.fixture
def stubs() -> Iterator[Path]:
    """A PATH with the system's plain tools and nothing else, which anybody may read."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        directory.chmod(0o755)
        for tool in TOOLS:
            program = shutil.which(tool)
            assert program is not None
            (directory / tool).symlink_to(program)
        yield directory


def _stub(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


def _fresh(checkout: Path) -> Path:
    """As cloned: nothing is set up."""
    shutil.rmtree(checkout / ".venv")
    return checkout / "metering"


def _calls(stubs: Path, name: str) -> list[str]:
    file = stubs / f"{name}.asked"
    return file.read_text().splitlines() if file.exists() else []


def test_no_python_is_one_clear_line(checkout: Path, stubs: Path) -> None:
    outcome = _run(_fresh(checkout), "up", cwd=checkout, path=str(stubs))
    assert outcome.returncode == 1
    assert outcome.stderr == (
        "metering: missing: python3 python3-venv maven; install them with this system's packages "
        "(Debian: apt-get install --no-install-recommends python3 python3-venv maven)\n"
    )


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_who_may_install_nothing_is_told_all_of_it_before_anything_is_fetched(
    checkout: Path, stubs: Path
) -> None:
    _stub(stubs / "python3", PYTHON)
    _stub(stubs / "apt-get", APT)
    own = stubs / "checkout"
    shutil.copytree(checkout, own)
    shutil.rmtree(own / ".venv")
    for path in (own, *own.rglob("*")):
        os.chown(path, NOBODY, NOBODY)
    outcome = _run(own / "metering", "up", cwd=Path("/"), path=str(stubs), user=NOBODY)
    assert outcome.returncode == 1
    assert outcome.stderr == (
        "metering: missing: python3.11-venv maven; install them: "
        "sudo apt-get install --no-install-recommends python3.11-venv maven\n"
    )
    assert _calls(stubs, "apt") == []


def test_an_address_of_jars_makes_up_for_maven(checkout: Path, stubs: Path) -> None:
    outcome = _run(
        _fresh(checkout), cwd=checkout, path=str(stubs), MAVEN_REPOSITORY="http://127.0.0.1/maven"
    )
    assert "missing: python3 python3-venv;" in outcome.stderr


def _set_up(checkout: Path, stubs: Path) -> "subprocess.CompletedProcess[str]":
    """With a .venv whose packages are to be installed, as root."""
    (checkout / ".venv" / ".metering-ready").unlink()
    for path in (stubs / "python3", checkout / ".venv" / "bin" / "python"):
        _stub(path, PYTHON)
    _stub(checkout / ".venv" / "bin" / "uv", UV)
    _stub(stubs / "apt-get", APT)
    _stub(stubs / "apt-cache", APT)
    _stub(stubs / "sudo", '#!/bin/bash\n[[ $1 != -n ]] || shift\nexec "$@"\n')
    outcome = _run(checkout / "metering", cwd=checkout, path=str(stubs), STUBS=str(stubs))
    assert outcome.returncode == 0, outcome.stderr
    return outcome


def test_mavens_own_jvm_is_enough(checkout: Path, stubs: Path) -> None:
    _set_up(checkout, stubs)
    assert [line for line in _calls(stubs, "apt") if "install" in line] == [
        "-q -y install --no-install-recommends maven"
    ]
    assert not [line for line in _calls(stubs, "uv") if "jvm.lock" in line]


def test_uv_is_given_the_certificates_that_pip_is_configured_with(
    checkout: Path, stubs: Path
) -> None:
    _set_up(checkout, stubs)
    assert {line.split()[0] for line in _calls(stubs, "uv")} == {"/etc/our-own.pem"}


def test_a_long_step_shows_what_it_is_at(checkout: Path, stubs: Path) -> None:
    assert "Downloading chdb (128.0MiB)" in _set_up(checkout, stubs).stderr

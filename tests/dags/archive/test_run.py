"""What `wattstream archive --verify` says of an archive, without a broker; and how topics are named."""

from pathlib import Path

import pytest

from dags.archive.messages import Messages
from dags.archive.run import TOPICS, named, verify
from dags.archive.store import Archive, Missing
from schemas.errors import UsageError, WattStreamError
from schemas.events import TOKENS
from schemas.settings import Settings


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Three files of one partition, a day each."""
    made = Settings(archive=tmp_path / "elsewhere", home=tmp_path / "home")
    store = Archive(made.archive_folder)
    messages = Messages()
    for offset in range(30):
        messages.add(offset, offset // 10 * 86_400_000, None, b"{}", None)
    with store.lock(TOKENS.topic):
        written = store.write(TOKENS.topic, "id", 0, Missing(0, 0, 30), [messages.batch(0)], None)  # type: ignore[arg-type]
        assert len(list(written)) == 3
    return made


def paths(settings: Settings) -> list[Path]:
    return [file.path for file in Archive(settings.archive_folder).chain(TOKENS.topic, 0).files]


def test_a_whole_archive_has_no_problems(settings: Settings) -> None:
    seen: list[tuple[int, int]] = []
    report = verify(settings, progress=lambda _, done, total: seen.append((done, total)))
    assert (report.checked, report.problems) == (3, [])
    assert seen == [(1, 3), (2, 3), (3, 3)]
    assert not settings.home.exists()


def test_a_cut_a_missing_and_a_changed_file_are_named_with_what_to_do(settings: Settings) -> None:
    first, second, third = paths(settings)
    first.write_bytes(first.read_bytes()[:-5])
    content = bytearray(third.read_bytes())
    content[50] ^= 255
    third.write_bytes(content)
    problems = verify(settings).problems
    assert [str(first) in problems[0], str(third) in problems[1]] == [True, True]
    third.write_bytes(bytes(b ^ 255 if i == 50 else b for i, b in enumerate(content)))
    first.unlink()
    second.unlink()
    assert verify(settings).problems == []  # the oldest days may be deleted


def test_a_gone_file_between_others_is_told(settings: Settings) -> None:
    paths(settings)[1].unlink()
    (problem,) = verify(settings, ["tokens"]).problems
    assert "offsets 10 to 19 is gone" in problem
    assert "wattstream archive" in problem


def test_no_archive_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(WattStreamError, match="There is no archive in"):
        verify(Settings(home=tmp_path))


def test_topics_have_short_names() -> None:
    assert named([], 1) == TOPICS
    assert named(["tokens", TOKENS.topic], 1) == [TOKENS.topic]
    assert named(["tokens", TOKENS.topic, "deadletters"], 3) == ["wattstream.tokens.v3", "wattstream.deadletters.v1"]
    with pytest.raises(UsageError, match="no topic 'token': it is one of"):
        named(["token"], 1)
